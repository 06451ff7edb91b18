//! Small dictionaries: texts that machines report (kernel, client version, CPU model) as integers.

use super::run::{DbError, Run};
use super::statements;

statements! {
    INSERT_WORDS = "insert into words (kind, text) select * from unnest($1::smallint[], $2::text[]) on conflict do nothing";
    SELECT_WORDS = "select w.kind, w.text, w.id from words w
        join unnest($1::smallint[], $2::text[]) as v(kind, text) on w.kind = v.kind and w.text = v.text";
    SELECT_WORD = "select text from words where id = $1";
}

/// The dictionaries; the discriminant is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i16)]
pub enum WordKind {
    /// Kernel versions.
    Kernel = 1,
    /// Client versions.
    ClientVersion = 2,
    /// CPU models.
    CpuModel = 3,
}

/// Ids of words, in no order; words that are new are added.
pub async fn ids(
    run: &impl Run,
    words: &[(WordKind, String)],
) -> Result<Vec<(i16, String, i32)>, DbError> {
    let kinds: Vec<i16> = words.iter().map(|(kind, _)| *kind as i16).collect();
    let texts: Vec<&str> = words.iter().map(|(_, text)| text.as_str()).collect();
    run.exec(&INSERT_WORDS, &[&kinds, &texts]).await?;
    let rows = run.rows(&SELECT_WORDS, &[&kinds, &texts]).await?;
    Ok(rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect())
}
