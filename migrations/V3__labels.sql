-- Labels of machines. Apart from `machines`, whose rows every check-in writes: a check-in touches no label.
create table machine_labels (
    machine_id uuid not null references machines on delete cascade,
    key        text not null,
    value      text not null,
    -- Given by the auth token at the last registration, and replaced at the next; what a person set stays.
    from_token boolean not null default false,
    primary key (machine_id, key)
);
-- Machines with a label, in the order of lists.
create index machine_labels_value on machine_labels (key, value, machine_id);
