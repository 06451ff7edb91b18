//! Selectors: which machines, in one line of text: `rack=r1,kernel=5.15.0-*,!retired`.
//!
//! A machine must meet every term. `kernel`, `flavour` and `arch` speak of what it reported, every other key of its
//! labels. `=` (or `==`) asks for a value, `!=` for anything else or nothing, `key` alone for any value, `!key` for none.
//! A kernel with a `*` at its end is a beginning. The text is kept in one form: equal selectors have equal texts.
//! [`Selector::matches`] is the rule; the database's filter is tested against it.

use super::label::{LabelKey, LabelValue, Labels};
use super::{Architecture, KernelVersion, ParseError, kernel::check_flavour, serde_as_str};
use std::fmt;
use std::str::FromStr;

/// The longest text.
const MAX_LEN: usize = 4096;
/// The most terms.
const MAX_TERMS: usize = 32;

/// The kernel that a term asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KernelPattern {
    /// Exactly this one, as reported.
    Exactly(String),
    /// One that begins so; an empty beginning is that of every kernel.
    Beginning(String),
}

/// What a term asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Test {
    /// This kernel.
    Kernel(KernelPattern),
    /// A kernel of this flavour.
    Flavour(String),
    /// This architecture.
    Architecture(Architecture),
    /// A label with this value, or with any.
    Label(LabelKey, Option<LabelValue>),
}

/// One term.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term {
    /// What it asks for.
    pub test: Test,
    /// It asks for machines of which this is not so.
    pub negated: bool,
}

/// Which machines; without terms: all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Selector {
    /// Sorted, each once.
    terms: Vec<Term>,
}

/// What a selector looks at.
#[derive(Debug, Clone, Copy)]
pub struct Traits<'a> {
    /// Kernel as reported.
    pub kernel: Option<&'a str>,
    /// Architecture, where reported and known.
    pub architecture: Option<Architecture>,
    /// Labels.
    pub labels: &'a Labels,
}

/// The flavour of a kernel as reported, which need not be a kernel version in every respect: what stands after its
/// second hyphen.
pub fn flavour_of(kernel: &str) -> Option<&str> {
    let mut parts = kernel.splitn(3, '-');
    let full = |part: Option<&'_ str>| part.is_some_and(|part| !part.is_empty());
    (full(parts.next()) && full(parts.next()))
        .then(|| parts.next())
        .flatten()
        .filter(|flavour| !flavour.is_empty())
}

impl Test {
    fn holds(&self, machine: &Traits<'_>) -> bool {
        match self {
            Self::Kernel(KernelPattern::Exactly(kernel)) => machine.kernel == Some(kernel),
            Self::Kernel(KernelPattern::Beginning(beginning)) => {
                machine.kernel.is_some_and(|k| k.starts_with(beginning))
            }
            Self::Flavour(flavour) => machine.kernel.and_then(flavour_of) == Some(flavour),
            Self::Architecture(architecture) => machine.architecture == Some(*architecture),
            Self::Label(key, None) => machine.labels.get(key).is_some(),
            Self::Label(key, Some(value)) => machine.labels.get(key) == Some(value),
        }
    }

    /// The word or key before the operator.
    fn subject(&self) -> &str {
        match self {
            Self::Kernel(_) => "kernel",
            Self::Flavour(_) => "flavour",
            Self::Architecture(_) => "arch",
            Self::Label(key, _) => key.as_str(),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.test.subject();
        let is = if self.negated { "!=" } else { "=" };
        match &self.test {
            Test::Kernel(KernelPattern::Exactly(kernel)) => write!(f, "{subject}{is}{kernel}"),
            Test::Kernel(KernelPattern::Beginning(text)) => write!(f, "{subject}{is}{text}*"),
            Test::Flavour(flavour) => write!(f, "{subject}{is}{flavour}"),
            Test::Architecture(architecture) => write!(f, "{subject}{is}{architecture}"),
            Test::Label(_, Some(value)) => write!(f, "{subject}{is}{value}"),
            Test::Label(_, None) if self.negated => write!(f, "!{subject}"),
            Test::Label(_, None) => f.write_str(subject),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.terms.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            term.fmt(f)?;
        }
        Ok(())
    }
}

impl Selector {
    /// Whether it selects all machines.
    pub fn is_all(&self) -> bool {
        self.terms.is_empty()
    }

    /// Its terms, sorted, each once.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Whether a term speaks of labels.
    pub fn asks_for_labels(&self) -> bool {
        let mut terms = self.terms.iter();
        terms.any(|term| matches!(term.test, Test::Label(..)))
    }

    /// Whether a machine meets every term.
    pub fn matches(&self, machine: &Traits<'_>) -> bool {
        let mut terms = self.terms.iter();
        terms.all(|term| term.test.holds(machine) != term.negated)
    }

    /// Refuses terms that no machine can meet together.
    fn check(terms: &[Term], text: &str) -> Result<(), ParseError> {
        for (at, term) in terms.iter().enumerate() {
            if let Some(other) = terms[at + 1..].iter().find(|other| contradict(term, other)) {
                let why = format!("{term} and {other} cannot both be met");
                return Err(ParseError::new("selector", text, why));
            }
        }
        Ok(())
    }
}

/// Whether two different terms exclude each other. Two kernels do even where one is the beginning of the other: whoever
/// wrote both meant either.
fn contradict(one: &Term, other: &Term) -> bool {
    let (wanted, excluded) = match (one.negated, other.negated) {
        (true, true) => return false,
        (false, false) => {
            let any = |term: &Term| matches!(term.test, Test::Label(_, None));
            return one.test.subject() == other.test.subject() && !any(one) && !any(other);
        }
        (false, true) => (&one.test, &other.test),
        (true, false) => (&other.test, &one.test),
    };
    match excluded {
        Test::Label(key, None) => wanted.subject() == key.as_str(),
        test => wanted == test,
    }
}

/// Reads one term without its negation.
fn read_test(key: &str, value: Option<&str>, text: &str) -> Result<Test, ParseError> {
    let err = |why: &str| ParseError::new("selector", text, format!("in {key:?}: {why}"));
    let needed = || value.ok_or_else(|| err("a value is needed, e.g. flavour=generic"));
    match key {
        "kernel" => {
            let kernel = needed()?;
            let (kernel, beginning) = match kernel.strip_suffix('*') {
                Some(beginning) => (beginning, true),
                None => (kernel, false),
            };
            let plain =
                |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~' | b'+');
            if kernel.len() > KernelVersion::MAX_LEN || !kernel.bytes().all(plain) {
                return Err(err(
                    "a kernel is made of letters, digits, '-', '_', '.', '~' and '+'; a '*' may only stand at its end",
                ));
            }
            if kernel.is_empty() && !beginning {
                return Err(err(
                    "a kernel is needed, e.g. 5.15.0-107.117-generic or 5.15.0-*",
                ));
            }
            Ok(Test::Kernel(if beginning {
                KernelPattern::Beginning(kernel.to_owned())
            } else {
                KernelPattern::Exactly(kernel.to_owned())
            }))
        }
        "flavour" | "flavor" => {
            let flavour = needed()?;
            check_flavour(flavour).map_err(|why| err(&why))?;
            Ok(Test::Flavour(flavour.to_owned()))
        }
        "arch" | "architecture" => {
            let architecture = needed()?.parse();
            Ok(Test::Architecture(
                architecture.map_err(|why: ParseError| err(&why.to_string()))?,
            ))
        }
        _ => {
            let label: LabelKey = key
                .parse()
                .map_err(|why: ParseError| err(&format!("not a label: {}", why.why)))?;
            let value = value.map(str::parse).transpose();
            Ok(Test::Label(
                label,
                value
                    .map_err(|why: ParseError| err(&format!("not a label's value: {}", why.why)))?,
            ))
        }
    }
}

/// Reads one term.
fn read_term(term: &str, text: &str) -> Result<Term, ParseError> {
    let parts =
        |at: usize, len: usize| (term[..at].trim_end(), Some(term[at + len..].trim_start()));
    let (key, value, negated) = if let Some(key) = term.strip_prefix('!') {
        if key.contains('=') {
            let why = format!("in {term:?}: KEY!=VALUE expected, or !KEY");
            return Err(ParseError::new("selector", text, why));
        }
        (key.trim_start(), None, true)
    } else if let Some(at) = term.find("!=") {
        let (key, value) = parts(at, 2);
        (key, value, true)
    } else if let Some(at) = term.find("==") {
        let (key, value) = parts(at, 2);
        (key, value, false)
    } else if let Some(at) = term.find('=') {
        let (key, value) = parts(at, 1);
        (key, value, false)
    } else {
        (term, None, false)
    };
    let test = read_test(key, value, text)?;
    Ok(Term { test, negated })
}

impl FromStr for Selector {
    type Err = ParseError;

    /// Reads terms separated by commas. An empty text selects all machines.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let err = |why: &str| Err(ParseError::new("selector", text, why));
        if text.len() > MAX_LEN {
            return err("longer than 4096 characters");
        }
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let mut terms = Vec::new();
        for term in text.split(',').map(str::trim) {
            if term.is_empty() {
                return err("a term is missing beside a comma");
            }
            if terms.len() == MAX_TERMS {
                return err("more than 32 terms");
            }
            terms.push(read_term(term, text)?);
        }
        terms.sort();
        terms.dedup();
        Self::check(&terms, text)?;
        Ok(Self { terms })
    }
}

serde_as_str!(Selector);

#[cfg(test)]
mod tests {
    use super::super::label::tests::labels;
    use super::*;
    use proptest::prelude::*;

    fn selector(text: &str) -> Selector {
        text.parse().unwrap()
    }

    #[test]
    fn each_kind_of_term_is_met_or_not() {
        let labels = labels(&[("rack", "r1"), ("example.com/site", "berlin"), ("old", "")]);
        let machine = Traits {
            kernel: Some("5.15.0-107.117-aws-fips"),
            architecture: Some(Architecture::Amd64),
            labels: &labels,
        };
        for (text, expected) in [
            ("", true),
            ("rack=r1", true),
            ("rack == r1", true),
            ("rack=r2", false),
            ("rack!=r1", false),
            ("rack!=r2", true),
            ("rack", true),
            ("!rack", false),
            ("old", true),
            ("old=", true),
            ("old!=", false),
            ("new", false),
            ("!new", true),
            ("new!=1", true),
            ("example.com/site=berlin", true),
            ("site=berlin", false),
            ("kernel=5.15.0-107.117-aws-fips", true),
            ("kernel=5.15.0-107.117-aws", false),
            ("kernel=5.15.0-107.117-aws*", true),
            ("kernel=5.15.0-10*", true),
            ("kernel=5.15.0-11*", false),
            ("kernel!=5.15.0-11*", true),
            ("kernel=*", true),
            ("kernel!=*", false),
            ("flavour=aws-fips", true),
            ("flavor=aws", false),
            ("flavour!=aws", true),
            ("arch=amd64", true),
            ("architecture=x86_64", true),
            ("arch=arm64", false),
            ("arch!=arm64", true),
            ("rack=r1,arch=amd64,!new,kernel=5.15*", true),
            ("rack=r1,arch=amd64,new", false),
            (" rack = r1 , rack , rack!=r2 ", true),
        ] {
            assert_eq!(selector(text).matches(&machine), expected, "{text}");
        }
        // One that never reported anything.
        let none = Labels::default();
        let silent = Traits {
            kernel: None,
            architecture: None,
            labels: &none,
        };
        for (text, expected) in [
            ("kernel=*", false),
            ("kernel!=*", true),
            ("flavour!=generic", true),
            ("arch!=amd64", true),
            ("arch=amd64", false),
            ("rack!=r1", true),
        ] {
            assert_eq!(selector(text).matches(&silent), expected, "{text}");
        }
    }

    #[test]
    fn equal_selectors_have_equal_texts() {
        let one = selector("rack=r1, architecture=x86_64,kernel=5.15*,!b,flavor=aws,rack=r1,a");
        assert_eq!(
            one.to_string(),
            "kernel=5.15*,flavour=aws,arch=amd64,a,!b,rack=r1"
        );
        assert_eq!(selector(&one.to_string()), one);
        assert!(one.asks_for_labels() && !selector("kernel=5.15*,arch!=amd64").asks_for_labels());
        assert!(selector(" ").is_all() && !one.is_all());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let (long, many) = ("a".repeat(5000), vec!["a"; 33].join(","));
        for (bad, word) in [
            ("rack=r1,", "comma"),
            (",", "comma"),
            ("a,,b", "comma"),
            ("=r1", "label"),
            ("rack=r 1", "value"),
            ("rack=r1=r2", "value"),
            ("rack=a*", "value"),
            ("!rack=r1", "KEY!=VALUE"),
            ("rack in (r1", "label"),
            ("kernel", "value is needed"),
            ("!arch", "value is needed"),
            ("kernel=", "kernel is needed"),
            ("kernel=5.15*0", "at its end"),
            ("kernel=5%", "letters"),
            ("flavour=Generic", "flavour"),
            ("arch=vax", "architecture"),
            ("tier=beta", "meaning of its own"),
            ("rack=r1,rack=r2", "rack=r1 and rack=r2"),
            ("rack=r1,rack!=r1", "cannot both"),
            ("rack=r1,!rack", "cannot both"),
            ("rack,!rack", "cannot both"),
            ("kernel=5.15*,kernel=5.15.0-107.117-aws", "cannot both"),
            ("kernel=*,kernel!=*", "cannot both"),
            ("arch=amd64,arch=arm64", "cannot both"),
            ("\u{202e}rack=r1", "label"),
            ("rack=r1\0", "value"),
            (&long, "4096"),
            (&many, "32 terms"),
        ] {
            let error = bad.parse::<Selector>().unwrap_err().to_string();
            assert!(error.contains(word), "{bad:?}: {error}");
        }
        for good in [
            "rack!=r1,rack!=r2",
            "rack,rack!=r1",
            "kernel=6*,kernel!=6.8*",
        ] {
            selector(good);
        }
    }

    #[test]
    fn flavours_are_read_from_what_is_reported() {
        for (kernel, flavour) in [
            ("5.15.0-107.117-generic", Some("generic")),
            ("5.15.0-107-ibm-gt-tdx", Some("ibm-gt-tdx")),
            ("a-1-generic", Some("generic")),
            ("a-1-", None),
            ("a--generic", None),
            ("-1-generic", None),
            ("5.15.0", None),
            ("", None),
        ] {
            assert_eq!(flavour_of(kernel), flavour, "{kernel}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_the_form_is_stable(text in "[a-z!=,*. \\-]{0,40}|\\PC{0,60}") {
            if let Ok(selector) = text.parse::<Selector>() {
                let shown = selector.to_string();
                prop_assert_eq!(shown.parse::<Selector>().unwrap(), selector);
            }
        }

        #[test]
        fn a_term_and_its_opposite_divide_all_machines(
            value in "[a-c]", mine in proptest::option::of("[a-c]"), kernel in "[56]\\.[0-9]", beginning in "[56]",
        ) {
            let pairs: Vec<_> = mine.iter().map(|v| ("k", v.as_str())).collect();
            let labels = labels(&pairs);
            let machine = Traits { kernel: Some(&kernel), architecture: None, labels: &labels };
            for (is, is_not) in [
                (format!("k={value}"), format!("k!={value}")),
                ("k".to_owned(), "!k".to_owned()),
                (format!("kernel={beginning}*"), format!("kernel!={beginning}*")),
            ] {
                prop_assert_ne!(selector(&is).matches(&machine), selector(&is_not).matches(&machine), "{}", is);
            }
        }
    }
}
