-- Rollout control: policies of tiers, rollouts of patches in them, and what the gate needs to know of machines.

-- The highest patch that the machine was offered, and since when; stays when the offer has been taken, and when the patch was stopped
-- and a lower one is offered. It changes once per patch and machine, so that check-ins stay HOT although it is indexed.
alter table machines add column tried bigint not null default 0, add column tried_at timestamptz;
create index machines_tried on machines (tried, tier_id) where tried <> 0;

create index pings_errors on pings (patch, machine_id, at) where ping_type like 'ping\_err%';

create table policies (
    tier_id integer primary key references tiers on delete cascade,
    -- as JSON, as a person wrote it
    spec    text not null,
    set_at  timestamptz not null default now(),
    actor   text not null,
    reason  text not null default ''
);

-- A patch, or the part of it under a scope, in a tier that has a policy.
create table rollouts (
    id           bigint generated always as identity primary key,
    patch_id     integer not null references patches,
    tier_id      integer not null references tiers on delete cascade,
    kernel       text not null default '',
    flavour      text not null default '',
    architecture smallint not null default 0,
    -- 1 awaiting approval, 2 running, 3 paused, 4 halted, 5 done, 6 aborted
    state        smallint not null check (state between 1 and 6),
    phase        integer not null default 0,
    -- machines whose place is below this are let in; 2^32 places
    threshold    bigint not null default 0 check (threshold between 0 and 4294967296),
    begun_at     timestamptz not null default now(),
    -- since when the phase's whole share is let in, or when the phase began
    phase_at     timestamptz not null default now(),
    widened_at   timestamptz not null default now(),
    -- offers made before this do not count toward the gate
    counts_from  timestamptz not null default now(),
    ended_at     timestamptz,
    requested_by text not null,
    approved_by  text,
    -- why it stands as it does, for people
    reason       text not null default '',
    unique (patch_id, tier_id, kernel, flavour, architecture)
);

-- How far single label values have come where the policy caps them.
create table rollout_limits (
    rollout_id bigint not null references rollouts on delete cascade,
    label      text not null,
    value      text not null,
    threshold  bigint not null,
    primary key (rollout_id, label, value)
);

-- What became of a rollout, for its timeline.
create table rollout_events (
    id         bigint generated always as identity primary key,
    rollout_id bigint not null references rollouts on delete cascade,
    at         timestamptz not null default now(),
    kind       text not null,
    actor      text not null,
    text       text not null
);
create index rollout_events_rollout on rollout_events (rollout_id, id);
