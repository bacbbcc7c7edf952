//! `customer export`: what it writes, an import takes back without a loss; so does a copy of the store.

use std::{fs, os::unix::fs::PermissionsExt};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::shop;
use crate::support::{Backend, Database, dcams, program, run};

/// Customers whose texts are hard to write down: quotes, commas, zeros, what only looks like a number, other scripts.
const CUSTOMERS: &str = r#"{"email":"zoe@example.com","fn":"Zoë \"Z\"","ln":"O'Neil, Jr.","addr":"1 Main St, Apt 2","zip":"06614","dob":"19700101","reference":"007","status":"PASS"}
{"email":"Ann+tag@Example.com","fn":"=1+1","ln":"安","phone":"+1 (201) 510-6000","reference":"1e5"}
{"email":"josé@bücher.example","city":"São Paulo","state":"SP","status":"FAIL"}
{"email":"bare@example.com"}
"#;

/// A database whose account `shop` has the customers.
fn full_shop(backend: Backend) -> Database {
    let database = shop(backend);
    take(&database, "customers.ndjson", CUSTOMERS);
    database
}

/// Imports a file of that name and content.
fn take(database: &Database, name: &str, content: &str) {
    let file = database.file(name, content);
    dcams(
        database,
        &["customer", "import", file.to_str().unwrap(), "--account", "shop"],
        "",
    )
    .ok();
}

fn export(database: &Database, arguments: &[&str]) -> String {
    dcams(
        database,
        &[&["customer", "export", "--account", "shop"], arguments].concat(),
        "",
    )
    .ok()
}

#[test]
fn an_export_that_is_imported_is_exported_as_the_same_bytes() {
    for (backend, other) in [
        (Backend::Sqlite, Backend::Postgres),
        (Backend::Postgres, Backend::Sqlite),
    ] {
        let database = full_shop(backend);
        for (format, name) in [("ndjson", "again.ndjson"), ("csv", "again.csv")] {
            let exported = export(&database, &["--format", format]);
            assert_eq!(exported.lines().count(), if format == "csv" { 5 } else { 4 });
            let again = shop(other);
            take(&again, name, &exported);
            assert_eq!(export(&again, &["--format", format]), exported, "{backend} {format}");
            // Every value is what it was, whatever the format that it went through.
            assert_eq!(export(&again, &[]), export(&database, &[]), "{backend} {format}");
        }
    }
}

#[test]
fn a_copy_there_and_back_gives_the_same_export() {
    let (there, back) = (Backend::Postgres.database(), Backend::Sqlite.database());
    let database = full_shop(Backend::Sqlite);
    for (from, to) in [(&database, &there), (&there, &back)] {
        run(
            program().args(["store", "copy", "--from", &from.url, "--to", &to.url]),
            "",
        )
        .ok();
        assert_eq!(export(to, &[]), export(&database, &[]));
    }
}

#[test]
fn images_go_into_a_folder_and_come_back_from_it() {
    let front = BASE64_STANDARD
        .decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
        .unwrap();
    for backend in Backend::BOTH {
        let database = shop(backend);
        database.file("front.png", &front);
        database.file("back.pdf", b"%PDF-1.7 and so on");
        take(
            &database,
            "customers.csv",
            "email,front,back\na@example.com,front.png,back.pdf\nb@example.com,,\nc@example.com,,back.pdf\n",
        );
        for (name, format) in [("out.csv", "csv"), ("out.ndjson", "ndjson")] {
            let (file, folder) = (database.path(name), database.path(&format!("images of {format}")));
            let arguments = [
                "--output",
                file.to_str().unwrap(),
                "--documents",
                folder.to_str().unwrap(),
            ];
            assert_eq!(export(&database, &arguments), "3 customers exported\n");
            let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&file), mode(&folder)), (0o600, 0o700), "{backend} {format}");
            let mut images: Vec<Vec<u8>> = fs::read_dir(&folder)
                .unwrap()
                .map(|image| fs::read(image.unwrap().path()).unwrap())
                .collect();
            images.sort();
            assert_eq!(
                images,
                [&b"%PDF-1.7 and so on"[..], b"%PDF-1.7 and so on", &front],
                "{backend} {format}"
            );

            // Into another account, from where it lies; the images are what they were.
            dcams(&database, &["account", "create", format], "").ok();
            dcams(
                &database,
                &["customer", "import", file.to_str().unwrap(), "--account", format],
                "",
            )
            .ok();
            let of_both = "SELECT count(*) FROM documents d JOIN customers c ON c.id = d.customer_id \
                           JOIN accounts a ON a.id = c.account_id";
            let copied = database
                .session()
                .number(&format!("({of_both} WHERE a.name = '{format}')"));
            assert_eq!(copied, 3, "{backend} {format}");
        }
        let contents = database
            .session()
            .number("(SELECT count(DISTINCT content) FROM documents)");
        assert_eq!(contents, 2, "{backend}");
    }
}

#[test]
fn an_image_that_is_none_is_a_bad_row_and_nothing_is_imported() {
    let database = shop(Backend::Sqlite);
    database.file("text.png", "this is no image");
    let file = database.file(
        "customers.csv",
        "email,front\na@example.com,\nb@example.com,text.png\nc@example.com,absent-canary.png\n",
    );
    let output = dcams(
        &database,
        &["customer", "import", file.to_str().unwrap(), "--account", "shop"],
        "",
    );
    assert_eq!(output.code, 1);
    assert!(output.err.contains("line 3: the front is invalid"), "{}", output.err);
    assert!(output.err.contains("line 4: the file of the front"), "{}", output.err);
    assert!(!output.err.contains("canary"), "{}", output.err);
    assert_eq!(database.session().number("(SELECT count(*) FROM customers)"), 0);
}
