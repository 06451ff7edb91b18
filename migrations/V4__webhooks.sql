-- Webhooks: who is told of events, the events themselves, and what became of each on its way to each webhook.

create table webhooks (
    id          integer generated always as identity primary key,
    name        text not null unique,
    url         text not null,
    -- `whsec_...`, as it is: it signs, so a hash would not do.
    secret      text not null,
    -- kinds (`patch.promoted`) and groups of them (`patch.*`); empty: all
    events      text[] not null default '{}',
    created_at  timestamptz not null default now(),
    created_by  text not null,
    disabled_at timestamptz
);

-- An event that somebody wanted when it happened. body is the exact text that is signed and sent, the same at every attempt.
create table outbox (
    id   uuid primary key default gen_random_uuid(),
    kind text not null,
    body text not null,
    at   timestamptz not null default now()
);

create table deliveries (
    id         bigint generated always as identity primary key,
    event_id   uuid not null references outbox on delete cascade,
    webhook_id integer not null references webhooks on delete cascade,
    state      text not null default 'pending' check (state in ('pending', 'delivered', 'dead')),
    attempts   integer not null default 0,
    -- while pending: not before
    next_at    timestamptz not null default now(),
    -- of the last attempt that failed
    last_error text,
    tried_at   timestamptz,
    ended_at   timestamptz,
    unique (event_id, webhook_id)
);
create index deliveries_pending on deliveries (webhook_id, next_at) where state = 'pending';
create index deliveries_dead on deliveries (webhook_id) where state = 'dead';
create index deliveries_webhook on deliveries (webhook_id, id);
create index deliveries_ended on deliveries (ended_at) where state <> 'pending';
