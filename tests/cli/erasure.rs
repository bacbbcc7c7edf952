//! `customer erase`: what goes, what stays, and that nobody erases by mistake.

use super::shop;
use crate::support::{Backend, dcams};

#[test]
fn a_customer_is_erased_and_its_history_stays() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        database.file("front.png", b"\x89PNG\r\n\x1a\nfront");
        let csv = "email,fn,status,front\nA@example.com,Canary,PASS,front.png\n";
        database.import("shop", csv);
        let command = |command: &str, flags: &[&str]| {
            let arguments = [&["customer", command, "a@example.com"], flags, &["--account", "shop"]].concat();
            dcams(&database, &arguments, "")
        };
        command("set-status", &["FAIL"]).ok();

        // There is no terminal to ask on.
        assert_eq!(
            command("erase", &[]).fails(1),
            "--yes is needed where there is no terminal to ask on"
        );
        command("show", &[]).ok();

        let said = command("erase", &["--yes"]).ok();
        let words: Vec<&str> = said.split_whitespace().collect();
        let (id, time) = (words[1], words[5].trim_end_matches(';'));
        assert!(id.len() == 32 && time.parse::<jiff::Timestamp>().is_ok(), "{said}");
        assert_eq!(
            said,
            format!("customer {id} is erased at {time}; 3 rows of its history stay\n")
        );

        for (what, flags) in [("show", &[][..]), ("erase", &["--yes"]), ("erase", &[])] {
            assert_eq!(command(what, flags).fails(1), "no such customer");
        }
        let mut session = database.session();
        for (table, rows) in [
            ("customers", 0),
            ("documents", 0),
            // The last of them is the erasure.
            ("status_changes", 3),
            ("erasures", 1),
        ] {
            assert_eq!(
                session.number(&format!("(SELECT count(*) FROM {table})")),
                rows,
                "{table}"
            );
        }

        // The same address is a new customer.
        database.import("shop", csv);
        let history = command("history", &[]).ok();
        assert_eq!(history.lines().count(), 2, "{history}");
        assert!(history.contains("-       -> PASS"), "{history}");
    }
}
