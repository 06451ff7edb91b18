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
            " and m.tier_id <> $16 order by m.id for no key update of m),
        moved as (
            update machines m set tier_id = $16 from hit where m.id = hit.id returning m.id, hit.tier_id as was),
        decided as (
            insert into machine_overrides (machine_id, tier_id, actor, reason)
            select id, $16, $17, $18 from moved
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
        own as materialized (
            select l.machine_id, bool_or(l.key = any ($18::text[])) as goes,
                count(*) filter (where t.value = l.value and not l.from_token) as same
            from hit join machine_labels l on l.machine_id = hit.id
                left join unnest($16::text[], $17::text[]) t(key, value) on t.key = l.key
            where l.key = any ($16::text[] || $18::text[]) group by l.machine_id)
        select (select count(*) from hit), case cardinality($16::text[])
            when 0 then (select count(*) from own where goes)
            else (select count(*) from hit)
                - (select count(*) from own where not goes and same = cardinality($16::text[])) end"
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
        gone as (delete from machine_labels l using hit where l.machine_id = hit.id and l.key = any ($18::text[]))
        insert into machine_labels (machine_id, key, value)
        select hit.id, t.key, t.value from hit, unnest($16::text[], $17::text[]) t(key, value) order by 1, 2
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
    SELECT_OVERFULL = "select l.machine_id from machine_labels l
        where l.machine_id in (select d.machine_id from machine_labels d where d.key = $1 and d.value = $2)
        group by l.machine_id having count(*) > $3::bigint order by 1 limit 1";
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
    let params = filter.params(&[&keys, &values, &remove]);
    let row = run.one(sql, &params).await?;
    Ok(LabelEffect {
        machines: row.get::<_, i64>(0).unsigned_abs(),
        changed: row.get::<_, i64>(1).unsigned_abs(),
    })
}

fn removed(changes: &LabelChanges) -> Vec<&str> {
    changes.remove().iter().map(LabelKey::as_str).collect()
}

/// Changes labels of all the machines as a person's; take [`super::labels::lock`] first. Returns a machine that now has
/// more labels than a machine may have, if there is one: then nothing of this may be kept.
pub async fn change_labels(
    run: &impl Run,
    filter: &MachineFilter,
    changes: &LabelChanges,
) -> Result<Option<MachineId>, DbError> {
    let sql = filter.pick(&RELABEL_SELECTED, &RELABEL_SELECTED_LED);
    let (keys, values) = columns(changes.set());
    let remove = removed(changes);
    let params = filter.params(&[&keys, &values, &remove]);
    run.exec(sql, &params).await?;
    let Some((key, value)) = changes.set().iter().next() else {
        return Ok(None);
    };
    let most = Labels::MAX as i64;
    let row = run
        .opt(&SELECT_OVERFULL, &[&key.as_str(), &value.as_str(), &most])
        .await?;
    Ok(row.map(|row| MachineId(row.get::<_, Uuid>(0).into_bytes())))
}
