//! Every number of the console leads to the list behind it, and that list is as long.

use crate::support::page::Person;
use crate::support::server::{Machine, TestServer};
use serde_json::json;

/// The links to lists of machines on a page, and the number that each begins with.
fn links(page: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for part in page.split("href=\"/console/machines?").skip(1) {
        let (query, rest) = part.split_once('"').unwrap();
        let text = rest.split_once('>').unwrap().1;
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        if let Ok(number) = digits.parse() {
            found.push((query.replace("&amp;", "&"), number));
        }
    }
    found
}

#[tokio::test]
async fn every_number_leads_to_a_list_of_as_many() {
    let server = TestServer::with_two_patches().await;
    let token = server.token("web", "edge").await;
    let mut machines = Vec::new();
    // What each reports after it was offered 107.1: its state, and the patch beside it.
    let reports = [
        (4, "applied", "107.1"),
        (3, "unapplied", ""),
        (2, "apply-failed", ""),
        (1, "apply-failed", "107.1"),
        (1, "applied-with-bug", "107.1"),
        (1, "applied", "106.1"),
        (1, "unapplied", "107.1"),
    ];
    for (count, state, version) in reports {
        for _ in 0..count {
            let n = u32::try_from(machines.len()).unwrap();
            let machine = Machine::register(&server, n, &token).await;
            assert_eq!(machine.offered(&server, None).await, "107.1");
            let mut report = machine.report(None);
            report["Status"][0]["Livepatch"]["State"] = json!(state);
            report["Status"][0]["Livepatch"]["Version"] = json!(version);
            assert_eq!(machine.send(&server, &report).await.status(), 200);
            machines.push(machine);
        }
    }
    let admin = Person::sign_in(&server, "admin").await;
    let mut seen = Vec::new();
    for page in [
        "/console",
        "/console/patches/107.1",
        "/console/patches/107.1/hold",
    ] {
        let page = admin.get(page).await;
        assert_eq!(page.status, 200, "{}", page.text);
        for (query, number) in links(&page.text) {
            let list = admin.get(&format!("/console/machines?{query}")).await;
            assert_eq!(list.status, 200, "{query}: {}", list.text);
            let listed = machines
                .iter()
                .filter(|machine| list.text.contains(&format!("/machines/{}\"", machine.id)))
                .count();
            assert_eq!(listed, number, "{query}");
            seen.push((query, number));
        }
    }
    let held = |part: &str, number: usize| {
        let mut all = seen.iter();
        assert!(
            all.any(|(query, found)| query.contains(part) && *found == number),
            "no link to {part} says {number}: {seen:#?}"
        );
    };
    held("version=107.1&fate=applied", 4);
    held("version=107.1&fate=failed", 4);
    held("version=107.1&fate=any", 13);
    held("version=107.1&fate=waiting", 5);
    held("state=apply-failed%2Capplied-with-bug", 4);
}
