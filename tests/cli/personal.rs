//! What an operator does about personal data: `customer erase`, and images that expire.

use super::shop;
use crate::support::{Backend, Gateway, dcams, eventually};

#[test]
fn a_customer_is_erased_and_its_history_stays() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        database.import(
            "shop",
            "email,ln,status\na@example.com,Lee,PASS\nb@example.com,Bo,FAIL\n",
        );
        let erase = ["customer", "erase", "A@Example.com", "--account", "shop"];
        let line = dcams(&database, &erase, "").fails(1);
        assert_eq!(line, "--yes is needed where there is no terminal to ask on");
        let said = dcams(&database, &[&erase[..], &["--yes"]].concat(), "").ok();
        assert!(said.starts_with("customer "), "{said}");
        assert!(said.ends_with("; 1 row of its history stays\n"), "{said}");
        dcams(&database, &[&erase[..], &["--yes"]].concat(), "").fails(1);

        let mut session = database.session();
        assert_eq!(session.number("(SELECT count(*) FROM customers)"), 1, "{backend}");
        assert_eq!(session.number("(SELECT count(*) FROM status_changes)"), 2, "{backend}");
        assert_eq!(
            session.number("(SELECT count(*) FROM erasures WHERE actor = 'operator')"),
            1
        );

        // The address can be registered anew, and begins from nothing.
        database.import("shop", "email\na@example.com\n");
        let shown = dcams(
            &database,
            &["customer", "show", "a@example.com", "--account", "shop"],
            "",
        )
        .ok();
        assert!(shown.contains("PENDING") && !shown.contains("Lee"), "{shown}");
    }
}

#[test]
fn images_are_deleted_when_they_have_been_kept_long_enough() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        database.file("front.pdf", b"%PDF-1.7");
        database.import(
            "shop",
            "email,front,back\na@example.com,front.pdf,\nb@example.com,front.pdf,front.pdf\n",
        );
        let mut session = database.session();
        // Two of them have been there for an hour.
        session.execute("UPDATE documents SET upload_time = upload_time - 3600000000 WHERE kind = 1");
        let gateway = Gateway::start(&database, &["--retain-documents-for", "30m"]);
        eventually("two images are deleted", || {
            gateway
                .get("/metrics")
                .text()
                .contains("dcams_documents_expired_total 2")
        });
        assert_eq!(session.number("(SELECT count(*) FROM documents)"), 1, "{backend}");
        assert_eq!(session.number("(SELECT count(*) FROM customers)"), 2, "{backend}");
    }
}
