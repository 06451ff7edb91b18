-- The base schema. Names are the product's vocabulary (docs/explanation/architecture.md).
-- Forward only; expand first, contract a release later.

-- Tiers: named, ordered stops on a patch's way out. position 0 is the first.
create table tiers (
    id         integer generated always as identity primary key,
    name       text not null unique,
    position   integer not null unique deferrable initially deferred,
    created_at timestamptz not null default now()
);

create table patches (
    id         integer generated always as identity primary key,
    -- (major << 20) | minor: orders like the version.
    version    bigint not null unique check (version > 0),
    created_at timestamptz not null default now()
);

-- One tarball for one kernel and architecture. A row exists only for an object that was verified.
create table payloads (
    id             bigint generated always as identity primary key,
    patch_id       integer not null references patches,
    filename       text not null unique,
    kernel         text not null,
    flavour        text not null,
    architecture   smallint not null,
    sha256         bytea not null check (length(sha256) = 32),
    size           bigint not null check (size > 0),
    module_name    text not null,
    module_sha256  bytea not null,
    vermagic       text not null,
    signer         text,
    signature_algorithm text,
    -- 0 not checked (policy off), 1 good, 2 not good but served (policy warn)
    signature      smallint not null,
    warning        text,
    fixes          jsonb not null default '[]',
    obsolete       boolean not null default false,
    source         text not null,
    added_at       timestamptz not null default now(),
    added_by       text not null,
    -- Set when a read found the object missing or altered: not offered until it verifies again.
    damaged        text,
    -- The sync run that took it in and has not made it visible yet; null: visible.
    staged         bigint,
    unique (patch_id, kernel, architecture)
);

-- A patch that has reached a tier is available in it and in all before it.
-- An empty kernel and flavour and architecture 0 mean: all.
create table promotions (
    patch_id     integer not null references patches,
    tier_id      integer not null references tiers,
    kernel       text not null default '',
    flavour      text not null default '',
    architecture smallint not null default 0,
    at           timestamptz not null default now(),
    actor        text not null,
    reason       text not null default '',
    primary key (patch_id, tier_id, kernel, flavour, architecture)
);

-- Blocks (1: withdrawn, also from machines that would fall back) and holds (2: not offered anew).
create table blocks (
    id           bigint generated always as identity primary key,
    patch_id     integer not null references patches,
    kind         smallint not null check (kind in (1, 2)),
    kernel       text not null default '',
    flavour      text not null default '',
    architecture smallint not null default 0,
    at           timestamptz not null default now(),
    actor        text not null,
    reason       text not null default '',
    lifted_at    timestamptz,
    lifted_by    text
);
create unique index blocks_standing on blocks (patch_id, kind, kernel, flavour, architecture) where lifted_at is null;

create table auth_tokens (
    id          integer generated always as identity primary key,
    name        text not null,
    tier_id     integer not null references tiers,
    hash        bytea not null unique,
    labels      jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    created_by  text not null,
    valid_until timestamptz,
    last_used   timestamptz,
    revoked_at  timestamptz
);
create unique index auth_tokens_name on auth_tokens (name) where revoked_at is null;

-- Small dictionaries, so that the rows written at every check-in stay short.
-- kind: 1 kernel, 2 client version, 3 CPU model.
create table words (
    id   integer generated always as identity primary key,
    kind smallint not null,
    text text not null,
    unique (kind, text)
);

-- The latest state of each machine. No index on a column that changes at a check-in: updates stay HOT.
create table machines (
    id                uuid primary key,
    tier_id           integer not null references tiers,
    auth_token_id     integer references auth_tokens,
    registered_at     timestamptz not null,
    last_check        timestamptz,
    kernel_id         integer,
    client_version_id integer,
    cpu_model_id      integer,
    boot_time         timestamptz,
    build_date        date,
    -- versions as in patches.version; 0: none
    patch             bigint not null default 0,
    offered           bigint not null default 0,
    offered_at        timestamptz,
    architecture      smallint not null default 0,
    state             smallint not null default 0,
    outcome           smallint not null default 0,
    support           smallint not null default 0
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- What an administrator decided about single machines; small, and read into every snapshot.
create table machine_overrides (
    machine_id     uuid primary key,
    tier_id        integer references tiers,
    -- Machine tokens issued before this are refused.
    revoked_before timestamptz,
    at             timestamptz not null default now(),
    actor          text not null,
    reason         text not null default ''
);

-- History, by day; whole partitions are dropped when they are old enough.
create table machine_reports (
    at           timestamptz not null,
    machine_id   uuid not null,
    tier_id      integer not null,
    kernel_id    integer,
    patch        bigint not null,
    offered      bigint not null,
    architecture smallint not null,
    state        smallint not null,
    outcome      smallint not null
) partition by range (at);
create table machine_reports_default partition of machine_reports default;
create index machine_reports_machine on machine_reports (machine_id, at);

create table pings (
    at           timestamptz not null default now(),
    machine_id   uuid not null,
    ping_type    text not null,
    kernel_id    integer,
    patch        bigint not null default 0,
    architecture smallint not null default 0,
    state        smallint not null default 0,
    message      text not null default ''
);
create index pings_machine on pings (machine_id, at);
create index pings_at on pings using brin (at);

create table supported_kernels (
    release      text not null,
    codename     text not null,
    architecture smallint not null,
    series       text not null,
    kind         text not null,
    flavours     text not null,
    months       smallint not null,
    end_of_life  date,
    primary key (codename, architecture, series)
);

create table quarantine (
    id         bigint generated always as identity primary key,
    filename   text not null,
    sha256     bytea not null,
    size       bigint not null,
    code       text not null,
    reason     text not null,
    source     text not null,
    actor      text not null,
    at         timestamptz not null default now(),
    unique (filename, sha256)
);

create table admins (
    name       text primary key,
    hash       text not null,
    role       text not null,
    created_at timestamptz not null default now(),
    changed_at timestamptz not null default now()
);

create table sessions (
    hash       bytea primary key,
    id         uuid not null unique,
    subject    text not null,
    role       text not null,
    source     text not null,
    created_at timestamptz not null default now(),
    last_used  timestamptz not null default now(),
    expires_at timestamptz not null
);

-- Failed logins per account and source, shared by all replicas.
create table login_failures (
    account       text not null,
    source        text not null,
    failures      integer not null,
    last_failure  timestamptz not null,
    blocked_until timestamptz not null,
    primary key (account, source)
);

-- Hash-chained. details is the exact text that was hashed.
create table audit_log (
    seq       bigint primary key,
    at        timestamptz not null,
    actor     text not null,
    source    text not null,
    action    text not null,
    target    text not null,
    details   text not null,
    prev_hash bytea not null,
    hash      bytea not null
);
-- One row: the chain's head. Taking it for update orders all mutations; seq is also the snapshot's version.
create table audit_head (
    one  boolean primary key default true check (one),
    seq  bigint not null,
    hash bytea not null
);
insert into audit_head (seq, hash) values (0, decode(repeat('00', 32), 'hex'));

-- Capture mode: raw requests of one machine or address, secrets masked, for a bounded time.
create table captures (
    id         bigint generated always as identity primary key,
    machine_id uuid,
    address    inet,
    until      timestamptz not null,
    max_records integer not null,
    -- counted up with every record, so that the bound holds for all replicas together
    recorded   integer not null default 0,
    created_at timestamptz not null default now(),
    actor      text not null,
    check (machine_id is not null or address is not null)
);
create table capture_records (
    id         bigint generated always as identity primary key,
    capture_id bigint not null references captures on delete cascade,
    at         timestamptz not null default now(),
    record     text not null
);
create index capture_records_capture on capture_records (capture_id, id);

-- Keys that every replica needs; empty when they are given by configuration.
create table server_keys (
    name       text primary key,
    value      bytea not null,
    created_at timestamptz not null default now()
);

-- Long work asked for by an administrator, and what came of it.
create table jobs (
    id          bigint generated always as identity primary key,
    kind        text not null,
    actor       text not null,
    state       text not null default 'running' check (state in ('running', 'done', 'failed')),
    progress    text not null default '{}',
    error       text,
    started_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    finished_at timestamptz
);

-- Leadership: who may run what only one replica may. The advisory lock decides; the epoch refuses the writes of one that was paused
-- and woke late.
create table leader (
    one        boolean primary key default true check (one),
    epoch      bigint not null default 0,
    holder     text not null default '',
    -- backend of the holder's own connection
    pid        integer,
    renewed_at timestamptz not null default 'epoch'
);
insert into leader (one) values (true);

-- What is known of an upstream: what was believed last, and what waits for a person.
create table sync_upstreams (
    name         text primary key,
    -- the last head that was believed, as JSON; null: none yet, or a driver without an index
    known        text,
    -- the state of that head, or the names that a driver without an index listed last
    state        text not null default '',
    -- the filter of the last run that went to the end, as JSON
    filter       text,
    -- why the last listing waits for a person, as JSON; its digest is what is confirmed
    pending      text,
    pending_digest bytea,
    confirmed_digest bytea,
    -- whether tiers and promotions were taken over from it once, after a person confirmed it
    mirrored     boolean not null default false,
    succeeded_at timestamptz
);

create table sync_runs (
    id          bigint generated always as identity primary key,
    upstream    text not null,
    -- 'interval', 'trigger', 'import'
    cause       text not null,
    actor       text not null,
    source      text not null default '',
    -- queued -> running -> done, failed, or waiting (for `sync confirm`)
    state       text not null default 'queued' check (state in ('queued', 'running', 'done', 'failed', 'waiting')),
    epoch       bigint not null default 0,
    progress    text not null default '{}',
    -- code and text of what went wrong
    code        text,
    error       text,
    queued_at   timestamptz not null default now(),
    started_at  timestamptz,
    updated_at  timestamptz not null default now(),
    finished_at timestamptz
);
create unique index sync_runs_one on sync_runs ((state)) where state in ('queued', 'running');
-- What a run did payload by payload, where it did something worth naming.
create table sync_items (
    run_id   bigint not null references sync_runs on delete cascade,
    filename text not null,
    result   text not null,
    reason   text not null default '',
    bytes    bigint not null default 0,
    primary key (run_id, filename)
);

create table sync_tokens (
    id          integer generated always as identity primary key,
    name        text not null,
    tier_id     integer not null references tiers,
    hash        bytea not null unique,
    created_at  timestamptz not null default now(),
    created_by  text not null,
    valid_until timestamptz,
    last_used   timestamptz,
    revoked_at  timestamptz
);
create unique index sync_tokens_name on sync_tokens (name) where revoked_at is null;

-- Deployments below this one: what each reported last, by the network or in an archive.
create table deployments (
    id          text primary key,
    via         text not null,
    reported_at timestamptz not null default now(),
    machines    text not null,
    report      text not null
);

-- States that were exported lately, so that the next archive can leave out what an older one brought.
create table exports (
    id        bigint generated always as identity primary key,
    tier      text not null,
    -- as JSON
    filter    text not null,
    version   bigint not null,
    digest    bytea not null,
    state     text not null,
    -- when its manifest was signed
    issued_at timestamptz not null,
    actor     text not null,
    unique (tier, filter, version)
);

-- Public keys of other deployments whose archives and indexes are believed.
create table trusted_keys (
    key        text primary key,
    name       text not null,
    added_at   timestamptz not null default now(),
    added_by   text not null
);

-- One partition of machine_reports for each day (UTC); made ahead, dropped whole.
create function make_report_partition(day date) returns boolean language plpgsql as $$
declare
    name text := 'machine_reports_' || to_char(day, 'YYYYMMDD');
begin
    if to_regclass(name) is not null then
        return false;
    end if;
    execute format('create table %I partition of machine_reports for values from (%L) to (%L)',
        name, day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00');
    return true;
end $$;

create function drop_report_partitions(before date) returns integer language plpgsql as $$
declare
    name text;
    dropped integer := 0;
begin
    for name in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'machine_reports'::regclass and c.relname ~ '^machine_reports_\d{8}$'
          and to_date(right(c.relname, 8), 'YYYYMMDD') < before
    loop
        execute format('drop table %I', name);
        dropped := dropped + 1;
    end loop;
    return dropped;
end $$;
create unique index jobs_running on jobs ((true)) where state = 'running';
