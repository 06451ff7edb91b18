-- How many machines of a tier ran a patch, noted every few minutes by the leader, when it is another number than before.
create table adoption (
    patch_id integer not null references patches on delete cascade,
    tier_id  integer not null references tiers on delete cascade,
    at       timestamptz not null default now(),
    machines bigint not null,
    primary key (patch_id, tier_id, at)
);
create index adoption_at on adoption (at);
