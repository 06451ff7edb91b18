-- wrk: check-ins of many machines in turn. Argument: a file with lines MACHINE-ID TOKEN BODY.
local requests, at = {}, 0

function init(args)
  local headers = { ["Content-Type"] = "application/json" }
  for line in io.lines(args[1]) do
    local id, token, body = line:match("^(%S+) (%S+) (.+)$")
    headers["Authorization"] = "Bearer " .. token
    requests[#requests + 1] = wrk.format("POST", "/v1/client/" .. id .. "/updates", headers, body)
  end
end

function request()
  at = at + 1
  return requests[at % #requests + 1]
end
