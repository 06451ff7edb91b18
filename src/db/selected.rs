//! What is done to all machines that a filter lets through. Each is one statement, however many they are.
//!
//! Rows of `machines` are locked in the order of their ids, as check-ins lock them, so that neither waits for the other
//! in a circle.

use super::filter::{MachineFilter, matching, source};
use super::fleet::By;
use super::labels::columns;
use super::patches::Group;
use super::run::{DbError, Run};
use super::statements;
use crate::domain::{LabelChanges, LabelKey, Labels, MachineId};
use uuid::Uuid;

/// See [`groups`].
macro_rules! groups {
    ($source:ident) => {
        concat!(
            "select g.tier_id, coalesce(w.text, ''), g.architecture, g.patch, g.n from (
            select m.tier_id, m.kernel_id, m.architecture, case when m.state in (1, 7) then m.patch else 0 end as patch,
                count(*) n",
            source!($source),
            matching!(),
            " group by 1, 2, 3, 4) g
        left join words w on w.id = g.kernel_id"
        )
    };
}

/// See [`move_to`].
macro_rules! moved {
    ($source:ident) => {
        concat!(
            "with hit as materialized (select m.id, m.tier_id",
            source!($source),
            matching!(),
            " and m.tier_id <> $12 order by m.id for no key update of m),
        moved as (
            update machines m set tier_id = $12 from hit where m.id = hit.id returning m.id, hit.tier_id as was),
        decided as (
            insert into machine_overrides (machine_id, tier_id, actor, reason)
            select id, $12, $13, $14 from moved
            on conflict (machine_id) do update set tier_id = excluded.tier_id, at = now(), actor = excluded.actor,
                reason = excluded.reason)
        select was, count(*) from moved group by was"
        )
    };
}

/// See [`label_effect`].
macro_rules! label_effect {
    ($source:ident) => {
        concat!(
            "with hit as materialized (select m.id",
            source!($source),
            matching!(),
            "),
        own as (
            select hit.id, count(*) filter (where l.key = any ($14::text[])) as gone,
                count(*) filter (where not l.from_token and (l.key, l.value) in (
                    select t.key, t.value from unnest($12::text[], $13::text[]) t(key, value))) as same,
                count(*) filter (where l.key <> all ($12::text[] || $14::text[])) as others
            from hit left join machine_labels l on l.machine_id = hit.id group by hit.id)
        select count(*), count(*) filter (where gone > 0 or same < cardinality($12::text[])),
            (array_agg(id order by id) filter (where others + cardinality($12::text[]) > $15::bigint))[1]
        from own"
        )
    };
}

/// See [`change_labels`].
macro_rules! relabelled {
    ($source:ident) => {
        concat!(
            "with hit as materialized (select m.id",
            source!($source),
            matching!(),
            " order by m.id for key share of m),
        gone as (delete from machine_labels l using hit where l.machine_id = hit.id and l.key = any ($14::text[]))
        insert into machine_labels (machine_id, key, value)
        select hit.id, t.key, t.value from hit, unnest($12::text[], $13::text[]) t(key, value) order by 1, 2
        on conflict (machine_id, key) do update set value = excluded.value, from_token = false
            where machine_labels.from_token or machine_labels.value <> excluded.value"
        )
    };
}

statements! {
    SELECT_SELECTED_GROUPS = groups!(all);
    SELECT_SELECTED_GROUPS_LED = groups!(led);
    MOVE_SELECTED = moved!(all);
    MOVE_SELECTED_LED = moved!(led);
    SELECT_LABEL_EFFECT = label_effect!(all);
    SELECT_LABEL_EFFECT_LED = label_effect!(led);
    RELABEL_SELECTED = relabelled!(all);
    RELABEL_SELECTED_LED = relabelled!(led);
}

/// The machines, as groups that have the same tier, kernel, architecture and patch.
pub async fn groups(run: &impl Run, filter: &MachineFilter) -> Result<Vec<Group>, DbError> {
    let sql = filter.pick(&SELECT_SELECTED_GROUPS, &SELECT_SELECTED_GROUPS_LED);
    let rows = run.rows(sql, &filter.params(&[])).await?;
    Ok(rows.iter().map(Group::from_row).collect())
}

/// Moves the machines that are in another tier to this one; how many from which.
pub async fn move_to(
    run: &impl Run,
    filter: &MachineFilter,
    tier_id: i32,
    by: By<'_>,
) -> Result<Vec<(i32, u64)>, DbError> {
    let sql = filter.pick(&MOVE_SELECTED, &MOVE_SELECTED_LED);
    let params = filter.params(&[&tier_id, &by.actor, &by.reason]);
    let rows = run.rows(sql, &params).await?;
    Ok(rows
        .iter()
        .map(|row| (row.get(0), row.get::<_, i64>(1).unsigned_abs()))
        .collect())
}

/// What a change of labels would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelEffect {
    /// Machines that are meant.
    pub machines: u64,
    /// Those that do not have it so already.
    pub changed: u64,
    /// One that would have more labels than a machine may have.
    pub overfull: Option<MachineId>,
}

/// Says what a change of labels would do.
pub async fn label_effect(
    run: &impl Run,
    filter: &MachineFilter,
    changes: &LabelChanges,
) -> Result<LabelEffect, DbError> {
    let sql = filter.pick(&SELECT_LABEL_EFFECT, &SELECT_LABEL_EFFECT_LED);
    let (keys, values) = columns(changes.set());
    let remove = removed(changes);
    let most = Labels::MAX as i64;
    let params = filter.params(&[&keys, &values, &remove, &most]);
    let row = run.one(sql, &params).await?;
    Ok(LabelEffect {
        machines: row.get::<_, i64>(0).unsigned_abs(),
        changed: row.get::<_, i64>(1).unsigned_abs(),
        overfull: row
            .get::<_, Option<Uuid>>(2)
            .map(|id| MachineId(id.into_bytes())),
    })
}

fn removed(changes: &LabelChanges) -> Vec<&str> {
    changes.remove().iter().map(LabelKey::as_str).collect()
}

/// Changes labels of all the machines as a person's. Take [`super::labels::lock`] and ask [`label_effect`] first.
pub async fn change_labels(
    run: &impl Run,
    filter: &MachineFilter,
    changes: &LabelChanges,
) -> Result<(), DbError> {
    let sql = filter.pick(&RELABEL_SELECTED, &RELABEL_SELECTED_LED);
    let (keys, values) = columns(changes.set());
    let remove = removed(changes);
    let params = filter.params(&[&keys, &values, &remove]);
    run.exec(sql, &params).await.map(|_| ())
}
