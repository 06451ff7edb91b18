//! Lines of CSV for spreadsheets, whose programs take a field that begins with `=` for a formula: some texts come from machines.

use super::output::printable;

/// A field as it stands in a line: quoted where needed, and led by an apostrophe where a spreadsheet would compute it.
fn field(text: &str) -> String {
    let mut text = printable(text);
    if text.starts_with(['=', '+', '-', '@']) {
        text.insert(0, '\'');
    }
    if text.contains(['"', ',', '\n', '\'']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

/// A header and lines, without a line break at the end.
pub fn csv(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = header.join(",");
    for row in rows {
        let fields: Vec<String> = row.iter().map(|text| field(text)).collect();
        text.push('\n');
        text.push_str(&fields.join(","));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_no_formula_survives() {
        let cells = [
            "plain",
            "",
            "a,b",
            "say \"x\"",
            "two\nlines",
            "=1+1",
            "@SUM(A1)",
            "-1",
            "\u{1b}[2J",
        ];
        let row = cells.map(ToOwned::to_owned).to_vec();
        assert_eq!(
            csv(&["h", "i"], [row]),
            "h,i\nplain,,\"a,b\",\"say \"\"x\"\"\",\"two\nlines\",\"'=1+1\",\"'@SUM(A1)\",\"'-1\",\u{fffd}[2J"
        );
    }
}
