//! Free text that administrators give: bounded, one line, nothing that would break a terminal or a log.

use super::ServiceError;

/// The most characters of a reason.
const MAX_REASON: usize = 500;

/// Checks a text: at most `max` characters, none of them a control character, no white space around it.
pub fn line(what: &str, text: &str, max: usize) -> Result<(), ServiceError> {
    let fault = if text.chars().count() > max {
        format!("is longer than {max} characters")
    } else if text.chars().any(char::is_control) {
        "holds control characters".to_owned()
    } else if text.trim() != text {
        "begins or ends with white space".to_owned()
    } else {
        return Ok(());
    };
    Err(ServiceError::Invalid(format!("the {what} {fault}")))
}

/// Checks the name of something an administrator makes: a line of 1 to `max` characters without slashes.
pub fn name(what: &str, text: &str, max: usize) -> Result<(), ServiceError> {
    if text.is_empty() {
        return Err(ServiceError::Invalid(format!("the {what} is empty")));
    }
    if text.contains('/') {
        return Err(ServiceError::Invalid(format!("the {what} holds a slash")));
    }
    line(what, text, max)
}

/// Checks a reason; none is an empty one.
pub fn reason(reason: Option<&str>) -> Result<&str, ServiceError> {
    let reason = reason.unwrap_or_default();
    line("reason", reason, MAX_REASON)?;
    Ok(reason)
}

/// There is no such thing; a long name is cut.
pub fn missing(what: &'static str, name: &str) -> ServiceError {
    ServiceError::not_found(what, name.chars().take(120).collect::<String>())
}
