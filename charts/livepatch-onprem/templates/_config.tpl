{{/*
The server's configuration: what values.config says and what the chart adds, under the server's own dotted keys; and what
other templates have to know of it. Nothing here fails: what is wrong is said by _validate.tpl.
*/}}

{{/* The server's keys whose values are secret. A test compares them with the server. */}}
{{- define "livepatch.secretKeys" -}}
- auth.basic.users
- auth.machine-token-key
- auth.oauth.client-secret
- contracts.password
- database.connection-string
- influx.token
- patch-storage.postgres-connection-string
- patch-storage.s3-access-key
- patch-storage.s3-secret-key
- patch-storage.swift-api-key
- patch-sync.token
- timescale_db.connection-string
- tracing.headers
{{- end -}}

{{/* A value as the server reads it. Numbers become texts: as numbers, large ones would come out as 6.7e+07. */}}
{{- define "livepatch.scalar" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ printf "%d" (int64 .) }}{{- else -}}{{ toString . }}{{- end -}}
{{- end -}}

{{/* Puts a tree of keys flat into a dict. Takes a dict: prefix, tree, into, twice (a dict of keys given twice). */}}
{{- define "livepatch.flatten" -}}
{{- $in := . -}}
{{- range $key, $value := .tree -}}
{{- $name := $key -}}
{{- if $in.prefix -}}{{- $name = printf "%s.%s" $in.prefix $key -}}{{- end -}}
{{- if kindIs "map" $value -}}
{{- include "livepatch.flatten" (dict "prefix" $name "tree" $value "into" $in.into "twice" $in.twice) -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- if hasKey $in.into $name -}}{{- $_ := set $in.twice $name true -}}{{- end -}}
{{- if kindIs "slice" $value -}}
{{- $items := list -}}
{{- range $value -}}{{- $items = append $items (include "livepatch.scalar" .) -}}{{- end -}}
{{- $_ := set $in.into $name $items -}}
{{- else if kindIs "bool" $value -}}
{{- $_ := set $in.into $name $value -}}
{{- else -}}
{{- $_ := set $in.into $name (include "livepatch.scalar" $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* values.config, flat, as YAML. */}}
{{- define "livepatch.given" -}}
{{- $into := dict -}}
{{- include "livepatch.flatten" (dict "prefix" "" "tree" .Values.config "into" $into "twice" dict) -}}
{{- toYaml $into -}}
{{- end -}}

{{/* What the chart sets unless values.config says otherwise. */}}
{{- define "livepatch.defaults" -}}
server.server-address: ":8080"
server.admin-address: ":8081"
server.ops-address: ":9090"
ingest.spool-directory: /var/lib/livepatch/spool
{{- if hasKey .Values.secrets "auth.basic.users" }}
auth.basic.enabled: true
{{- end }}
{{- end -}}

{{/* What the chart sets, whatever values.config says: saying it there is refused. */}}
{{- define "livepatch.owned" -}}
patch-storage.filesystem-path: /var/lib/livepatch/patches
{{- if .Values.tls.enabled }}
server.tls.certificate: /etc/livepatch/tls/tls.crt
server.tls.key: /etc/livepatch/tls/tls.key
{{- end }}
{{- range $key, $from := .Values.files }}
{{ $key }}: /etc/livepatch/files/{{ $key }}
{{- end }}
{{- end -}}

{{/* The configuration that the server gets, as YAML. */}}
{{- define "livepatch.config" -}}
{{- /* Not with merge, which takes "" and false for nothing. */ -}}
{{- $all := dict -}}
{{- range $layer := list "livepatch.defaults" "livepatch.given" "livepatch.owned" -}}
{{- range $key, $value := include $layer $ | fromYaml -}}{{- $_ := set $all $key $value -}}{{- end -}}
{{- end -}}
{{- if ne (index $all "patch-storage.type" | default "filesystem") "filesystem" -}}
{{- $all = omit $all "patch-storage.filesystem-path" -}}
{{- end -}}
{{- $trusted := index $all "patch-trust.certificates" | default list -}}
{{- if kindIs "string" $trusted -}}{{- $trusted = splitList "," $trusted -}}{{- end -}}
{{- range $name := keys .Values.patchTrust.certificates | sortAlpha -}}
{{- $trusted = append $trusted (printf "/etc/livepatch/trust/%s" $name) -}}
{{- end -}}
{{- if .Values.patchTrust.configMap -}}
{{- range .Values.patchTrust.configMapKeys -}}{{- $trusted = append $trusted (printf "/etc/livepatch/trust/%s" .) -}}{{- end -}}
{{- end -}}
{{- if $trusted -}}{{- $_ := set $all "patch-trust.certificates" $trusted -}}{{- end -}}
{{- $kept := dict -}}
{{- range $key, $value := $all -}}
{{- if or (kindIs "bool" $value) $value -}}{{- $_ := set $kept $key $value -}}{{- end -}}
{{- end -}}
{{- toYaml $kept -}}
{{- end -}}

{{/* The data of the ConfigMap. */}}
{{- define "livepatch.configData" -}}
livepatch.yaml: |
  # Made by the chart from its values. `livepatch-server config show` in a pod prints what is in effect.
  {{- include "livepatch.config" . | nindent 2 }}
{{- range $name, $pem := .Values.patchTrust.certificates }}
trust.{{ $name }}: |
  {{- $pem | trim | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "livepatch.storage" -}}
{{- index (include "livepatch.config" . | fromYaml) "patch-storage.type" | default "filesystem" -}}
{{- end -}}

{{/* The port of an address such as :8080 or 0.0.0.0:8080; nothing if there is none. */}}
{{- define "livepatch.portOf" -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" .) -}}
{{- end -}}

{{/*
The ports of the container by name, as YAML: clients always, admin and ops where they have an address of their own. Two
surfaces on one address have one port, which is then called admin.
*/}}
{{- define "livepatch.ports" -}}
{{- $config := include "livepatch.config" . | fromYaml -}}
{{- $clients := include "livepatch.portOf" (index $config "server.server-address" | default "") -}}
{{- $admin := include "livepatch.portOf" (index $config "server.admin-address" | default "") -}}
{{- $ops := include "livepatch.portOf" (index $config "server.ops-address" | default "") -}}
clients: {{ $clients | default "8080" }}
{{- with $admin }}
admin: {{ . }}
{{- end }}
{{- if and $ops (ne $ops $admin) }}
ops: {{ $ops }}
{{- end }}
{{- end -}}

{{/* Which port answers for administration, and which for health and metrics. */}}
{{- define "livepatch.adminPort" -}}
{{- if hasKey (include "livepatch.ports" . | fromYaml) "admin" -}}admin{{- else -}}clients{{- end -}}
{{- end -}}
{{- define "livepatch.opsPort" -}}
{{- $ports := include "livepatch.ports" . | fromYaml -}}
{{- if hasKey $ports "ops" -}}ops
{{- else if index (include "livepatch.config" . | fromYaml) "server.ops-address" -}}admin
{{- else -}}clients{{- end -}}
{{- end -}}

{{/* The service that has a port: machines have one, the rest is in another. Takes (list ROOT PORT). */}}
{{- define "livepatch.serviceOf" -}}
{{- include "livepatch.fullname" (index . 0) -}}
{{- if ne (index . 1) "clients" -}}-internal{{- end -}}
{{- end -}}
{{- define "livepatch.servicePort" -}}
{{- $root := index . 0 -}}
{{- if eq (index . 1) "clients" -}}{{ $root.Values.service.port }}{{- else -}}{{ index (include "livepatch.ports" $root | fromYaml) (index . 1) }}{{- end -}}
{{- end -}}

{{- define "livepatch.replicas" -}}
{{- if .Values.autoscaling.enabled -}}{{ .Values.autoscaling.minReplicas }}
{{- else if kindIs "invalid" .Values.replicaCount -}}2
{{- else -}}{{ .Values.replicaCount }}{{- end -}}
{{- end -}}
{{- define "livepatch.mostReplicas" -}}
{{- if .Values.autoscaling.enabled -}}{{ .Values.autoscaling.maxReplicas }}{{- else -}}{{ include "livepatch.replicas" . }}{{- end -}}
{{- end -}}

{{- define "livepatch.migration" -}}
{{- if .Values.migration.mode -}}{{ .Values.migration.mode }}
{{- else if .Values.developmentPostgresql.enabled -}}onStart
{{- else -}}job{{- end -}}
{{- end -}}

{{/* Seconds of a duration such as 1m30s, rounded up; nothing if it is not one. */}}
{{- define "livepatch.seconds" -}}
{{- if regexMatch "^\\s*([0-9]+(ms|s|m|h)\\s*)+$" . -}}
{{- $ms := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- $ms = add $ms (mul (regexFind "[0-9]+" . | int64) (index (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) $unit)) -}}
{{- end -}}
{{- div (add $ms 999) 1000 -}}
{{- end -}}
{{- end -}}

{{- define "livepatch.shutdownGrace" -}}
{{- include "livepatch.seconds" (index (include "livepatch.config" . | fromYaml) "server.shutdown-grace" | default "30s") -}}
{{- end -}}

{{/* The port of a URL or of host[:port]. Takes (list TEXT SCHEME-IF-THERE-IS-NONE). */}}
{{- define "livepatch.urlPort" -}}
{{- $text := index . 0 -}}
{{- if not (contains "://" $text) -}}{{- $text = printf "%s://%s" (index . 1) $text -}}{{- end -}}
{{- $scheme := index (splitList "://" $text) 0 -}}
{{- $authority := index (splitList "/" (index (splitList "://" $text) 1)) 0 -}}
{{- include "livepatch.portOf" $authority | default (ternary "443" "80" (eq $scheme "https")) -}}
{{- end -}}
