//! Tables and pages of lists.

use super::forms::address;
use maud::{Markup, html};

/// A table with a caption for those who listen, scrolling sideways where it must.
pub(super) fn table(caption: &str, head: &[&str], rows: &[Vec<Markup>], none: &str) -> Markup {
    if rows.is_empty() {
        return html! { p.quiet { (none) } };
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table {
                caption.unseen { (caption) }
                thead { tr { @for name in head { th scope="col" { (name) } } } }
                tbody {
                    @for row in rows {
                        tr { @for cell in row { td { (cell) } } }
                    }
                }
            }
        }
    }
}

/// Names and values.
pub(super) fn facts(pairs: &[(&str, Markup)]) -> Markup {
    html! {
        dl.facts {
            @for (name, value) in pairs {
                div { dt { (name) } dd { (value) } }
            }
        }
    }
}

/// The way to the next page of a list, by cursor.
pub(super) fn more(path: &str, query: &[(&str, Option<String>)], cursor: Option<&str>) -> Markup {
    let Some(cursor) = cursor else {
        return html! {};
    };
    let mut query = query.to_vec();
    query.push(("cursor", Some(cursor.to_owned())));
    html! { p { a.more href=(address(path, &query)) rel="next" { "Next page" } } }
}
