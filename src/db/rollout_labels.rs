//! Machines in line for a patch by the value of a label that the policy caps: who is at it, and who waits.

use super::run::{DbError, Run};
use super::statements;
use crate::domain::{Architecture, MachineId, PatchVersion};
use tokio_postgres::Row;
use uuid::Uuid;

statements! {
    // Whoever has not checked in for so many seconds and was not offered it is not there and takes nobody's turn; whoever was
    // offered it and went silent has had its turn.
    SELECT_IN_LINE = "select l.machine_id, l.value, k.text, m.architecture, m.tried = $3,
            m.patch >= $3 or (m.tried = $3 and m.state = 2 and m.last_check <> m.tried_at)
                or (m.tried = $3 and m.last_check < now() - make_interval(secs => $4))
        from machine_labels l join machines m on m.id = l.machine_id left join words k on k.id = m.kernel_id
        where l.key = $1 and m.tier_id = $2
          and (m.tried = $3 or m.last_check >= now() - make_interval(secs => $4))";
}

/// A machine with a value of a label that is capped.
#[derive(Debug, Clone)]
pub struct InLine {
    /// Machine.
    pub machine: MachineId,
    /// Its value of the label.
    pub value: String,
    /// Kernel as reported.
    pub kernel: String,
    /// Architecture.
    pub architecture: Option<Architecture>,
    /// The patch was offered to it.
    pub offered: bool,
    /// What came of it is known, or will not be.
    pub reported: bool,
}

fn machine(row: &Row, column: usize) -> MachineId {
    MachineId(row.get::<_, Uuid>(column).into_bytes())
}

/// The machines of a tier that have a label, as far as they are there. A machine is silent that has not checked in for `silence`
/// seconds.
pub async fn in_line(
    run: &impl Run,
    label: &str,
    tier_id: i32,
    version: PatchVersion,
    silence: f64,
) -> Result<Vec<InLine>, DbError> {
    let rows = run
        .rows(
            &SELECT_IN_LINE,
            &[&label, &tier_id, &version.code(), &silence],
        )
        .await?;
    let in_line = |row: &Row| InLine {
        machine: machine(row, 0),
        value: row.get(1),
        kernel: row.get::<_, Option<String>>(2).unwrap_or_default(),
        architecture: Architecture::from_code(row.get(3)),
        offered: row.get(4),
        reported: row.get(5),
    };
    Ok(rows.iter().map(in_line).collect())
}
