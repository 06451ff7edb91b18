-- Tokens of programs that use the admin API. As with all random tokens only the hash is kept.
create table service_tokens (
    id          integer generated always as identity primary key,
    name        text not null,
    hash        bytea not null unique,
    -- What it may do, e.g. {read} or {patches:write,reports:read}.
    scopes      text[] not null,
    created_at  timestamptz not null default now(),
    created_by  text not null,
    valid_until timestamptz,
    last_used   timestamptz,
    revoked_at  timestamptz
);
create unique index service_tokens_name on service_tokens (name) where revoked_at is null;
