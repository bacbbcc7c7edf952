//! `customer export`: what it writes, and that an import takes it back.

use std::{collections::BTreeMap, fmt::Write as _, os::unix::fs::PermissionsExt, path::Path};

use super::shop;
use crate::support::{Backend, Database, Gateway, dcams, program, run};

/// Customers with texts that a file may get wrong, in no order.
const AWKWARD: &str = r##"{"email":"Zoë.O'Neil+tag@Exämple.com","fn":"Zoë","ln":"O\"Neil, \"Jr.\"","addr":"1; Main 'St' \\ \"5\"","city":"Łódź 🏙","state":"='1'+2","zip":"00042","dob":"19000101","phone":"+1 (201) 510-6000","reference":"007","status":"FAIL"}
{"email":"a@example.com"}
{"email":"M@Example.COM","fn":"null","ln":"\"","addr":",","city":"#","state":"-","zip":"1e5","reference":"0.10","status":"PASS"}
{"email":"b@example.com","fn":"e\u0301 é","ln":"\u202eevil\ufeff","status":"PENDING"}
"##;

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn import(database: &Database, path: &Path) -> String {
    let import = ["customer", "import", path.to_str().unwrap(), "--account", "shop"];
    dcams(database, &import, "").ok()
}

/// Exports to standard output.
fn export(database: &Database, flags: &[&str]) -> String {
    dcams(
        database,
        &[&["customer", "export", "--account", "shop"], flags].concat(),
        "",
    )
    .ok()
}

#[test]
fn what_is_exported_is_what_was_imported() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        assert_eq!(export(&database, &[]), "");
        import(&database, &database.file("customers.ndjson", AWKWARD));
        let expected = AWKWARD
            .replace(
                r#"{"email":"a@example.com"}"#,
                r#"{"email":"a@example.com","status":"PENDING"}"#,
            )
            .replace(r"e\u0301 é", "e\u{301} é")
            .replace(r"\u202eevil\ufeff", "\u{202e}evil\u{feff}");
        assert_eq!(export(&database, &[]), expected);
        let csv = export(&database, &["--format", "csv"]);
        let mut lines = csv.lines();
        assert_eq!(
            lines.next(),
            Some("email,fn,ln,addr,city,state,zip,dob,phone,reference,status")
        );
        assert_eq!(
            lines.next(),
            Some(
                "Zoë.O'Neil+tag@Exämple.com,Zoë,\"O\"\"Neil, \"\"Jr.\"\"\",\"1; Main 'St' \\ \"\"5\"\"\",Łódź 🏙,='1'+2,00042,19000101,+1 (201) 510-6000,007,FAIL"
            )
        );
        assert_eq!(lines.next(), Some("a@example.com,,,,,,,,,,PENDING"));
    }
}

#[test]
fn an_export_that_was_imported_is_exported_as_the_same_bytes() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let mut content = AWKWARD.to_owned();
        // More than a page, and in no order.
        for number in 0..1_100 {
            let number = number * 7_919 % 1_100;
            writeln!(content, "{{\"email\":\"c{number}@example.com\",\"zip\":\"0{number}\"}}").unwrap();
        }
        import(&database, &database.file("customers.ndjson", content));
        for format in ["csv", "ndjson"] {
            let exported = export(&database, &["--format", format]);
            let other = shop(backend);
            let file = other.file(&format!("exported.{format}"), &exported);
            assert_eq!(import(&other, &file), "1104 customers created, 0 already there\n");
            assert_eq!(export(&other, &["--format", format]), exported);
            // From and to an encrypted store, whose order is not that of what customers are found by.
            let sealed = backend.database();
            let key = run(program().args(["keys", "generate"]), "").ok();
            let run_sealed = |arguments: &[&str]| {
                let mut command = program();
                command.args(["--store", &sealed.url]).args(arguments);
                run(command.env("DCAMS_KEYS", &key), "").ok()
            };
            run_sealed(&["account", "create", "shop"]);
            run_sealed(&["customer", "import", file.to_str().unwrap(), "--account", "shop"]);
            let again = run_sealed(&["customer", "export", "--account", "shop", "--format", format]);
            assert_eq!(again, exported);
        }
    }
}

#[test]
fn a_file_is_for_its_owner_only_and_whole_or_not_there() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        import(&database, &database.file("customers.ndjson", AWKWARD));
        let path = database.file("out.csv", "as it was");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let said = export(&database, &["--output", "out.csv"]);
        assert_eq!(said, "4 customers exported\n");
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            export(&database, &["--format", "csv"])
        );
        assert_eq!(mode(&path), 0o600);
        assert!(!database.path("out.csv.part").exists());

        // The name tells the format, unless it is given.
        export(&database, &["--output", "out.txt"]);
        assert_eq!(
            std::fs::read_to_string(database.path("out.txt")).unwrap(),
            export(&database, &[])
        );
        assert_eq!(
            export(&database, &["--output", "/dev/stdout"]),
            export(&database, &[]) + &said
        );

        for (output, says) in [("absent/out.csv", "No such file"), (".", "Is a directory")] {
            let arguments = ["customer", "export", "--account", "shop", "--output", output];
            let line = dcams(&database, &arguments, "").fails(1);
            assert!(
                line.starts_with(&format!("{output}: ")) && line.contains(says),
                "{line}"
            );
        }
        let line = dcams(&database, &["customer", "export", "--account", "nobody"], "").fails(1);
        assert_eq!(line, "nobody: no such account");
    }
}

/// A file of each kind that a document may be.
fn kinds() -> [(&'static str, Vec<u8>); 5] {
    [
        ("jpg", b"\xff\xd8\xff\xe0 jpeg".to_vec()),
        ("png", b"\x89PNG\r\n\x1a\n png".to_vec()),
        ("webp", b"RIFF\x10\0\0\0WEBPVP8 webp".to_vec()),
        ("heic", b"\0\0\0\x18ftypheic\0\0\0\0heicmif1 heic".to_vec()),
        ("pdf", b"%PDF-1.7 pdf".to_vec()),
    ]
}

/// The images of an exported file, by customer and side.
fn images(folder: &Path, exported: &str) -> BTreeMap<(String, &'static str), Vec<u8>> {
    let mut images = BTreeMap::new();
    let lines = exported.lines().map(|line| serde_json::from_str(line).unwrap());
    for row in lines.collect::<Vec<serde_json::Value>>() {
        for side in ["front", "back"] {
            if let Some(path) = row[side].as_str() {
                let content = std::fs::read(folder.join(path)).unwrap();
                images.insert((row["email"].as_str().unwrap().to_owned(), side), content);
            }
        }
    }
    images
}

#[test]
fn images_are_written_beside_and_imported_again() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let mut rows = String::from("email,front,back\nnone@example.com,,\n");
        for (kind, content) in kinds() {
            database.file(&format!("{kind}.image"), &content);
            let back = if kind == "pdf" { "" } else { "pdf.image" };
            writeln!(rows, "{kind}@example.com,{kind}.image,{back}").unwrap();
        }
        import(&database, &database.file("customers.csv", rows));

        std::fs::create_dir(database.path("out")).unwrap();
        let to = ["--output", "out/shop.ndjson", "--documents", "out/images/of shop"];
        assert_eq!(export(&database, &to), "6 customers exported\n");
        let folder = database.path("out/images/of shop");
        assert_eq!(mode(&folder), 0o700);
        let mut extensions = BTreeMap::<String, usize>::new();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600);
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let (id, rest) = name.split_once('-').unwrap();
            assert!(
                id.len() == 32 && (rest.starts_with("front.") || rest.starts_with("back.")),
                "{name}"
            );
            *extensions
                .entry(rest.rsplit('.').next().unwrap().to_owned())
                .or_default() += 1;
        }
        assert_eq!(
            extensions,
            [("heic", 1), ("jpg", 1), ("pdf", 5), ("png", 1), ("webp", 1)]
                .map(|(name, count)| (name.to_owned(), count))
                .into()
        );
        let exported = std::fs::read_to_string(database.path("out/shop.ndjson")).unwrap();
        assert!(exported.contains(r#""front":"images/of shop/"#), "{exported}");
        let expected = images(&database.path("out"), &exported);
        assert_eq!(expected.len(), 9);
        assert_eq!(expected[&("jpg@example.com".to_owned(), "front")], kinds()[0].1);

        // Wherever the folder is moved to, both formats bring the images with them.
        export(
            &database,
            &["--output", "out/shop.csv", "--documents", "out/images/of shop"],
        );
        let moved = database.path("moved");
        std::fs::rename(database.path("out"), &moved).unwrap();
        for name in ["shop.ndjson", "shop.csv"] {
            let other = shop(backend);
            assert_eq!(
                import(&other, &moved.join(name)),
                "6 customers created, 0 already there\n"
            );
            // A folder elsewhere has paths that are absolute.
            let elsewhere = tempfile::tempdir().unwrap();
            let path = elsewhere.path().join("images");
            let exported = export(&other, &["--documents", path.to_str().unwrap()]);
            assert!(
                exported.contains(&format!("\"front\":\"{}/", path.display())),
                "{exported}"
            );
            assert_eq!(images(Path::new("/nowhere"), &exported), expected);
        }
    }
}

#[test]
fn old_images_are_deleted_in_the_background_and_counted() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        database.file("front.png", &kinds()[1].1);
        let mut rows = String::from("email,front,back\n");
        for number in 0..130 {
            writeln!(rows, "c{number}@example.com,front.png,front.png").unwrap();
        }
        import(&database, &database.file("customers.csv", rows));
        let mut session = database.session();
        // All but the last ten are from two hours ago.
        session.execute(
            "UPDATE documents SET upload_time = upload_time - 7200000000 \
             WHERE customer_id <= (SELECT max(id) - 5 FROM customers)",
        );

        let kept = Gateway::start(&database, &[]);
        assert!(
            !String::from_utf8(kept.get("/metrics").body)
                .unwrap()
                .contains("dcams_documents_expired_total")
        );
        drop(kept);
        let gateway = Gateway::start(&database, &["--retain-documents-for", "1h"]);
        crate::support::eventually("250 images are deleted", || {
            let metrics = String::from_utf8(gateway.get("/metrics").body).unwrap();
            metrics.lines().any(|line| line == "dcams_documents_expired_total 250")
        });
        assert_eq!(session.number("(SELECT count(*) FROM documents)"), 10);
        assert_eq!(session.number("(SELECT count(*) FROM customers)"), 130);
        assert_eq!(gateway.stop().code, 0);
    }
}

#[test]
fn a_copy_there_and_back_gives_the_same_export() {
    let (there, back) = (Backend::Postgres.database(), Backend::Sqlite.database());
    let database = shop(Backend::Sqlite);
    database.import(
        "shop",
        "email,fn,zip,status\nAnn+tag@Example.com,\"Ann, \"\"A\"\"\",06614,PASS\njos\u{e9}@example.com,\u{5b89},,FAIL\n",
    );
    let exported = export(&database, &[]);
    assert_eq!(exported.lines().count(), 2);
    for (from, to) in [(&database, &there), (&there, &back)] {
        run(
            program().args(["store", "copy", "--from", &from.url, "--to", &to.url]),
            "",
        )
        .ok();
        assert_eq!(export(to, &[]), exported);
    }
}
