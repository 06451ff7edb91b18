//! How long a token is valid: as asked for, and as told when it is made.

use super::CliError;
use super::context::Context;
use super::times::When;
use clap::Args;
use jiff::Timestamp;

/// Until when a token is valid that has an end unless it is asked to have none.
#[derive(Debug, Args)]
pub struct Validity {
    /// Until when it is valid: a time, a day or a span such as 365d [default: 90d]
    #[arg(long, value_name = "TIME", conflicts_with = "no_expiry")]
    pub valid_until: Option<When>,
    /// It never expires
    #[arg(long)]
    pub no_expiry: bool,
}

/// The moment that was given, if any.
///
/// # Errors
///
/// A span that leads beyond what a time can be.
pub fn moment(context: &Context, given: Option<When>) -> Result<Option<Timestamp>, CliError> {
    given
        .map(|when| when.ahead(Timestamp::now(), context.zone()))
        .transpose()
        .map_err(CliError::Usage)
}

/// Tells people of the token that follows: what it is, and until when it is valid.
pub fn tell(context: &Context, what: &str, valid_until: Option<Timestamp>) {
    if context.for_people() {
        let until = valid_until.map_or_else(|| "no end".to_owned(), |at| context.view().time(at));
        context.note(&format!(
            "{what} valid until: {until}. It is shown only now."
        ));
    }
}
