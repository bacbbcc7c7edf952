//! `customer import`: what is taken, what is refused and how that is said.

use std::{collections::BTreeMap, fmt::Write as _, io::Read, path::Path, process::Stdio, sync::mpsc, time::Duration};

use diesel::{QueryableByName, sql_types::BigInt};

use super::shop;
use crate::support::{Backend, Database, Output, dcams, program};

/// Imports what `content` says, as a file of this name.
fn import(database: &Database, name: &str, content: impl AsRef<[u8]>, flags: &[&str]) -> Output {
    import_path(database, &database.file(name, content), flags)
}

fn import_path(database: &Database, path: &Path, flags: &[&str]) -> Output {
    let import = ["customer", "import", path.to_str().unwrap(), "--account", "shop"];
    dcams(database, &[&import, flags].concat(), "")
}

/// The attributes of a customer as `customer show` has them.
fn shown(database: &Database, email: &str) -> BTreeMap<String, String> {
    let shown = dcams(database, &["customer", "show", email, "--account", "shop"], "").ok();
    let pairs = shown.lines().map(|line| line.split_once(' ').unwrap());
    pairs
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

/// How many changes of statuses are on record.
fn changes(database: &Database) -> usize {
    count(database, "status_changes")
}

fn customers(database: &Database) -> usize {
    count(database, "customers")
}

fn count(database: &Database, table: &str) -> usize {
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = BigInt)]
        count: i64,
    }
    let rows: Vec<Count> = database
        .session()
        .rows(&format!("SELECT count(*) AS count FROM {table}"));
    usize::try_from(rows[0].count).unwrap()
}

/// What was wrong with the rows, and the line at the end.
fn refused(output: Output) -> (Vec<String>, String) {
    assert_eq!((output.code, &*output.out), (1, ""), "{output:?}");
    let mut lines: Vec<_> = output.err.lines().map(str::to_owned).collect();
    let last = lines.pop().unwrap();
    (lines, last.strip_prefix("error: ").unwrap().to_owned())
}

fn created(count: usize) -> String {
    let customers = if count == 1 { "customer" } else { "customers" };
    format!("{count} {customers} created, 0 already there\n")
}

#[test]
fn a_csv_file_is_read_by_its_header() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        for (content, email) in [
            ("email,fn,ln\na@example.com,Ann,Lee\n", "a@example.com"),
            // In another order, without the last line end, as Windows writes it, as Excel writes it.
            ("ln,email,fn\nLee,b@example.com,Ann", "b@example.com"),
            ("email,fn,ln\r\nc@example.com,Ann,Lee\r\n", "c@example.com"),
            ("\u{feff}email,fn,ln\r\nd@example.com,Ann,Lee\r\n", "d@example.com"),
            (
                "\u{feff}\"email\",\"fn\",\"ln\"\n\"e@example.com\",\"Ann\",\"Lee\"\n",
                "e@example.com",
            ),
            (" email , fn , ln \n f@example.com , Ann , Lee \n", "f@example.com"),
            ("email,fn,ln\n\n\ng@example.com,Ann,Lee\n\n", "g@example.com"),
        ] {
            assert_eq!(
                import(&database, "customers.csv", content, &[]).ok(),
                created(1),
                "{content:?}"
            );
            let shown = shown(&database, email);
            assert_eq!(
                (&*shown["fn"], &*shown["ln"], &*shown["status"]),
                ("Ann", "Lee", "PENDING")
            );
        }
        assert_eq!(changes(&database), 7);
    }
}

#[test]
fn every_column_is_taken_from_either_format() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let csv = "email,fn,ln,addr,city,state,zip,dob,phone,reference,status\n\
                   csv@example.com,Zoë,\"O\"\"Neil, Jr.\",\"1, Main \"\"St\"\"\",Łódź,CT,06614,19700101,+1 201,00042,fail\n";
        let json = r#"{"email":"json@example.com","fn":"Zoë","ln":"O\"Neil, Jr.","addr":"1, Main \"St\"","city":"Łódź","state":"CT","zip":"06614","dob":"19700101","phone":"+1 201","reference":"00042","status":"fail"}"#;
        assert_eq!(import(&database, "customers.csv", csv, &[]).ok(), created(1));
        assert_eq!(import(&database, "customers.ndjson", json, &[]).ok(), created(1));
        for email in ["csv@example.com", "json@example.com"] {
            let shown = shown(&database, email);
            for (name, value) in [
                ("email", email),
                ("fn", "Zoë"),
                ("ln", "O\"Neil, Jr."),
                ("addr", "1, Main \"St\""),
                ("city", "Łódź"),
                ("state", "CT"),
                ("zip", "06614"),
                ("dob", "19700101"),
                ("phone", "+1 201"),
                ("reference", "00042"),
                ("status", "FAIL"),
            ] {
                assert_eq!(shown[name], value, "{name}");
            }
        }
    }
}

#[test]
fn json_lines_may_hold_numbers_nulls_and_blank_lines() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let content = concat!(
            "\u{feff}{\"email\":\"a@example.com\",\"zip\":6614,\"phone\":2015106000,\"dob\":19700101,\"reference\":888888812}\r\n",
            "\r\n",
            "{\"email\":\"b@example.com\",\"zip\":null,\"fn\":\"  Ann \",\"ln\":\"\"}\n",
            "   \n",
            "{\"reference\":12345678901234567890,\"email\":\"c@example.com\"}",
        );
        assert_eq!(import(&database, "customers.jsonl", content, &[]).ok(), created(3));
        let a = shown(&database, "a@example.com");
        assert_eq!(
            [&*a["zip"], &a["phone"], &a["dob"], &a["reference"]],
            ["6614", "2015106000", "19700101", "888888812"]
        );
        let b = shown(&database, "b@example.com");
        assert_eq!([&*b["zip"], &b["fn"], &b["ln"]], ["", "Ann", ""]);
        assert_eq!(shown(&database, "c@example.com")["reference"], "12345678901234567890");
    }
}

#[test]
fn the_format_is_told_by_the_name_or_by_a_flag() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let csv = "email\na@example.com\n";
        let json = r#"{"email":"a@example.com"}"#;
        for name in ["customers", "customers.txt", "csv"] {
            let line = import(&database, name, csv, &[]).fails(1);
            assert!(line.starts_with("--format is needed: "), "{line}");
        }
        assert_eq!(
            import(&database, "customers.txt", csv, &["--format", "csv"]).ok(),
            created(1)
        );
        let again = "0 customers created, 1 already there\n";
        assert_eq!(
            import(&database, "customers", json, &["--format", "ndjson"]).ok(),
            again
        );
        // The flag wins.
        assert_eq!(
            import(&database, "customers.csv", json, &["--format", "ndjson"]).ok(),
            again
        );
    }
}

#[test]
fn a_header_that_is_wrong_is_said_without_quoting_it() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        for (content, says) in [
            ("", "no column email"),
            ("\n\n", "no column email"),
            ("fn,ln\nAnn,Lee\n", "no column email"),
            ("email,fn,email\na@example.com,Ann,b@example.com\n", "a column twice"),
            ("email,ssn\na@example.com,1\n", "column 2 of the header is unknown"),
            ("email,\na@example.com,1\n", "column 2 of the header is unknown"),
            ("email,Fn\na@example.com,1\n", "column 2 of the header is unknown"),
            ("email;fn\na@example.com;Ann\n", "column 1 of the header is unknown"),
            // No header at all: what stands there is personal data.
            ("canary@example.com,canary\n", "column 1 of the header is unknown"),
        ] {
            let line = import(&database, "customers.csv", content, &["--skip-bad"]).fails(1);
            assert!(line.contains(says), "{content:?}: {line}");
            assert!(!line.contains("canary"), "{line}");
        }
        assert_eq!(customers(&database), 0);
    }
}

#[test]
fn a_file_without_customers_imports_none() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        for (name, content) in [
            ("customers.csv", "email,fn\n"),
            ("customers.csv", "email"),
            ("customers.ndjson", ""),
            ("customers.ndjson", "\n\n"),
        ] {
            assert_eq!(import(&database, name, content, &[]).ok(), created(0), "{content:?}");
        }
    }
}

/// Rows of every kind of fault, each with the line that it is on and what is said of it.
fn faults() -> [(&'static str, Vec<u8>, Vec<&'static str>); 2] {
    let csv = [
        "email,fn,ln,addr,city,state,zip,dob,phone,reference,status",
        "good1@example.com,Ann,Lee,,,,,,,,PASS",
        "canary,,,,,,,,,,",
        ",canary,,,,,,,,,",
        "canary@example.com,,,,,,,19000229,,,",
        "",
        "canary@example.com,,,,,,12345678901234567,,,,",
        "canary@example.com,,,,,,,,,,CANARY",
        "canary@example.com,canary",
        "canary@example.com,,,,,,,,,,,canary",
        "\"canary@example.com\",\"can",
        "ary\",,,,,,,,,",
        "good2@example.com,Ann,Lee,,,,,,,,",
        "canary@example.com,\u{1}canary,,,,,,,,,",
    ];
    let csv = csv.join("\n") + "\ncanary@example.com,canary";
    let csv = [csv.as_bytes(), b"\xff", b",,,,,,,,,\ngood3@example.com,,,,,,,,,,\n"].concat();
    let csv_says = vec![
        "line 3: the email is invalid",
        "line 4: the email is missing",
        "line 5: the dob is not a date written as YYYYMMDD",
        "line 7: the zip is invalid",
        "line 8: the status is none of PASS, PENDING, FAIL",
        "line 9: the row has more or fewer values than the header",
        "line 10: the row has more or fewer values than the header",
        "line 11: the fn is invalid (the row ends on line 12: is a quote not closed?)",
        "line 14: the fn is invalid",
        "line 15: the row is not UTF-8",
    ];
    let json = [
        r#"{"email":"good1@example.com","fn":"Ann","ln":"Lee","status":"PASS"}"#,
        r#"{"email":"canary"}"#,
        r#"{"fn":"canary"}"#,
        r#"{"email":"","fn":"canary"}"#,
        r#"{"email":"canary@example.com","dob":"19000229"}"#,
        "",
        r#"{"email":"canary@example.com","zip":"12345678901234567"}"#,
        r#"{"email":"canary@example.com","status":"CANARY"}"#,
        r#"{"email":"canary@example.com","canary":"canary"}"#,
        r#"{"email":"canary@example.com","fn":4711}"#,
        r#"{"email":"canary@example.com","fn":["canary"]}"#,
        r#"{"email":"canary@example.com","reference":true}"#,
        r#"["canary@example.com"]"#,
        r#"{"email":"canary@example.com""#,
        r#"{"email":"good2@example.com","fn":"Ann","ln":"Lee"}"#,
        "canary",
    ];
    let json = json.join("\n") + "\n{\"email\":\"canary@example.com\",\"fn\":\"";
    let json = [json.as_bytes(), b"\xff\"}\n{\"email\":\"good3@example.com\"}"].concat();
    let json_says = vec![
        "line 2: the email is invalid",
        "line 3: the email is missing",
        "line 4: the email is missing",
        "line 5: the dob is not a date written as YYYYMMDD",
        "line 7: the zip is invalid",
        "line 8: the status is none of PASS, PENDING, FAIL",
        "line 9: a key is none of email, fn, ln, addr, city, state, zip, dob, phone, reference, status, front, back",
        "line 10: the fn is invalid",
        "line 11: the fn is invalid",
        "line 12: the reference is invalid",
        "line 13: the line is not a JSON object",
        "line 14: the line is not a JSON object",
        "line 16: the line is not a JSON object",
        "line 17: the row is not UTF-8",
    ];
    [("customers.csv", csv, csv_says), ("customers.ndjson", json, json_says)]
}

#[test]
fn bad_rows_are_named_by_line_and_reason_and_nothing_is_imported() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        for (name, content, says) in faults() {
            let output = import(&database, name, &content, &[]);
            assert!(!output.err.to_lowercase().contains("canary"), "{output:?}");
            let (lines, last) = refused(output);
            assert_eq!(lines, says);
            let bad = says.len();
            assert_eq!(
                last,
                format!("nothing is imported: {bad} bad rows (see above; --skip-bad imports the others)")
            );
            assert_eq!(customers(&database), 0);
        }
    }
}

#[test]
fn the_lines_of_a_file_from_windows_are_counted_alike() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        for (name, content, says) in faults() {
            let content = content
                .split(|byte| *byte == b'\n')
                .collect::<Vec<_>>()
                .join(&b"\r\n"[..]);
            let (lines, _) = refused(import(&database, name, &content, &[]));
            assert_eq!(lines, says);
        }
    }
}

#[test]
fn the_good_rows_are_imported_when_bad_ones_may_be_skipped() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        for (round, (name, content, says)) in faults().into_iter().enumerate() {
            let output = import(&database, name, &content, &["--skip-bad"]);
            assert_eq!(output.code, 0, "{output:?}");
            assert_eq!(output.err.lines().collect::<Vec<_>>(), says);
            assert!(!output.err.to_lowercase().contains("canary"), "{output:?}");
            let (created, there) = if round == 0 { (3, 0) } else { (0, 3) };
            assert_eq!(
                output.out,
                format!(
                    "{created} customers created, {there} already there, {} bad rows skipped\n",
                    says.len()
                )
            );
            assert_eq!(customers(&database), 3);
            for (email, status) in [("good1", "PASS"), ("good2", "PENDING"), ("good3", "PENDING")] {
                assert_eq!(shown(&database, &format!("{email}@example.com"))["status"], status);
            }
        }
        let one = import(&database, "customers.csv", "email\ncanary\n", &["--skip-bad"]);
        assert_eq!(one.out, "0 customers created, 0 already there, 1 bad row skipped\n");
    }
}

#[test]
fn an_empty_value_keeps_what_is_stored() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        import(
            &database,
            "customers.csv",
            "email,fn,ln,city,reference,status\na@example.com,Ann,Lee,Stratford,42,FAIL\n",
            &[],
        )
        .ok();
        for (name, content) in [
            (
                "customers.csv",
                "email,fn,city,reference,status\nA@example.com,Anna,,,\n",
            ),
            (
                "customers.ndjson",
                r#"{"email":"A@example.com","fn":"Anna","city":"","reference":null,"status":""}"#,
            ),
        ] {
            assert_eq!(
                import(&database, name, content, &[]).ok(),
                "0 customers created, 1 already there\n"
            );
            let shown = shown(&database, "a@example.com");
            // The address is shown as it was given first.
            for (name, value) in [
                ("email", "a@example.com"),
                ("fn", "Anna"),
                ("ln", "Lee"),
                ("city", "Stratford"),
                ("reference", "42"),
                ("status", "FAIL"),
            ] {
                assert_eq!(shown[name], value, "{name}");
            }
        }
        assert_eq!(changes(&database), 1);
    }
}

#[test]
fn an_import_that_is_made_again_changes_nothing() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let mut content = String::from("email,fn,status\n");
        for number in 0..1_200 {
            let status = ["PASS", "FAIL", "pending", ""][number % 4];
            writeln!(content, "c{number}@example.com,Ann,{status}").unwrap();
        }
        assert_eq!(import(&database, "customers.csv", &content, &[]).ok(), created(1_200));
        let before = shown(&database, "c1199@example.com");
        assert_eq!(
            import(&database, "customers.csv", &content, &[]).ok(),
            "0 customers created, 1200 already there\n"
        );
        assert_eq!(shown(&database, "c1199@example.com"), before);
        assert_eq!((customers(&database), changes(&database)), (1_200, 1_200));
    }
}

#[test]
fn a_status_that_an_import_changes_is_on_record() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        for (status, changed) in [("PASS", 1), ("PASS", 1), ("fail", 2), ("", 2), ("Pending", 3)] {
            let content = format!("email,status\na@example.com,{status}\n");
            import(&database, "customers.csv", &content, &[]).ok();
            assert_eq!(changes(&database), changed, "{status}");
        }
        assert_eq!(shown(&database, "a@example.com")["status"], "PENDING");
    }
}

#[test]
fn customers_belong_to_the_account_that_is_named() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        dcams(&database, &["account", "create", "other"], "").ok();
        let file = database.file("customers.csv", "email\na@example.com\n");
        let path = file.to_str().unwrap();
        for account in ["shop", "other"] {
            let out = dcams(&database, &["customer", "import", path, "--account", account], "").ok();
            assert_eq!(out, created(1));
        }
        let line = dcams(&database, &["customer", "import", path, "--account", "nobody"], "").fails(1);
        assert_eq!(line, "nobody: no such account");
    }
}

#[test]
fn a_quote_that_is_not_closed_does_not_take_the_file_in() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let mut content = String::from("email,fn\na@example.com,\"Ann\n");
        for number in 0..50_000 {
            writeln!(content, "c{number}@example.com,canary").unwrap();
        }
        for flags in [&[][..], &["--skip-bad"]] {
            let line = import(&database, "customers.csv", &content, flags).fails(1);
            assert_eq!(
                line,
                "line 2: a row is longer than 262144 bytes: is a quote not closed?"
            );
        }
        // In a file that is smaller than that, the row that has the rest of it says how much that is.
        let small: String = content.lines().take(100).map(|line| format!("{line}\n")).collect();
        let output = import(&database, "customers.csv", small, &["--skip-bad"]);
        assert_eq!(
            output.err,
            "line 2: the fn is invalid (the row ends on line 100: is a quote not closed?)\n"
        );
        assert_eq!(customers(&database), 0);
    }
}

#[test]
fn a_row_that_is_too_long_ends_the_import_before_it_begins() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let long = "canary".repeat(50_000);
        for (name, content) in [
            (
                "customers.csv",
                format!("email,fn\na@example.com,Ann\nb@example.com,{long}\n"),
            ),
            (
                "customers.ndjson",
                format!("{{\"email\":\"a@example.com\"}}\n\n{{\"email\":\"b@example.com\",\"fn\":\"{long}\"}}\n"),
            ),
        ] {
            let line = import(&database, name, content, &["--skip-bad"]).fails(1);
            assert_eq!(
                line,
                "line 3: a row is longer than 262144 bytes: is a quote not closed?"
            );
        }
        assert_eq!(customers(&database), 0);
    }
}

#[test]
fn what_is_no_file_is_not_read() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let path = database.path("absent.csv");
        let line = import_path(&database, &path, &[]).fails(1);
        assert_eq!(
            line,
            format!("{}: No such file or directory (os error 2)", path.display())
        );

        let folder = database.path("folder.csv");
        std::fs::create_dir(&folder).unwrap();
        let pipe = database.path("pipe.csv");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        for path in [folder, pipe] {
            let line = import_path(&database, &path, &[]).fails(1);
            assert!(line.starts_with(&format!("{} is not a file", path.display())), "{line}");
        }
    }
}

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n canary";

#[test]
fn images_are_read_from_beside_the_file_or_from_anywhere() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        let elsewhere = tempfile::tempdir().unwrap();
        let absolute = elsewhere.path().join("back.pdf");
        std::fs::write(&absolute, "%PDF-1.7").unwrap();
        std::fs::create_dir(database.path("folder")).unwrap();
        database.file("folder/front, 1.png", PNG);
        let csv = format!(
            "email,front,back\na@example.com,\"front, 1.png\",{}\n",
            absolute.display()
        );
        assert_eq!(import(&database, "folder/customers.csv", csv, &[]).ok(), created(1));
        assert_eq!(count(&database, "documents"), 2);
        // What is empty keeps what is stored.
        for (name, content) in [
            ("customers.csv", "email,front\na@example.com,\n"),
            (
                "customers.ndjson",
                "{\"email\":\"a@example.com\",\"front\":null,\"back\":\"\"}",
            ),
        ] {
            import(&database, name, content, &[]).ok();
            assert_eq!(count(&database, "documents"), 2);
        }
    }
}

#[test]
fn images_that_are_none_are_named_by_line_and_side_and_nothing_is_imported() {
    for backend in Backend::BOTH {
        let database = shop(backend);
        database.file("good.png", PNG);
        database.file("canary.gif", "GIF89a canary");
        database.file("canary.empty", "");
        std::fs::create_dir(database.path("canary.folder")).unwrap();
        let pipe = database.path("canary.pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let large = std::fs::File::create(database.path("canary.large")).unwrap();
        std::io::Write::write_all(&mut &large, PNG).unwrap();
        large.set_len(10 * 1_024 * 1_024 + 1).unwrap();
        let fitting = std::fs::File::create(database.path("fitting.png")).unwrap();
        std::io::Write::write_all(&mut &fitting, PNG).unwrap();
        fitting.set_len(10 * 1_024 * 1_024).unwrap();

        let csv = "email,front,back\n\
                   a@example.com,good.png,fitting.png\n\
                   b@example.com,canary.gif,\n\
                   c@example.com,good.png,canary.empty\n\
                   d@example.com,canary.folder,\n\
                   e@example.com,,canary.pipe\n\
                   f@example.com,canary.large,\n\
                   g@example.com,canary.absent,\n\
                   h@example.com,,\n";
        let invalid = |side| format!("the {side} is invalid: it is no JPEG, PNG, WebP, HEIC or PDF, or too large");
        let unreadable = |side| format!("the file of the {side} cannot be read");
        let says = [
            (3, invalid("front")),
            (4, invalid("back")),
            (5, unreadable("front")),
            (6, unreadable("back")),
            (7, invalid("front")),
            (8, unreadable("front")),
        ]
        .map(|(line, fault)| format!("line {line}: {fault}"));
        let (lines, last) = refused(import(&database, "customers.csv", csv, &[]));
        assert_eq!(lines, says);
        assert!(last.starts_with("nothing is imported: 6 bad rows"), "{last}");
        assert_eq!(customers(&database), 0);

        let output = import(&database, "customers.csv", csv, &["--skip-bad"]);
        assert_eq!(output.out, "2 customers created, 0 already there, 6 bad rows skipped\n");
        assert!(!output.err.contains("canary"), "{output:?}");
        assert_eq!(count(&database, "documents"), 2);

        // The limit is that of the gateways.
        let csv = "email,front\na@example.com,canary.large\n";
        import(&database, "customers.csv", csv, &["--document-limit", "11MiB"]).ok();
        let (lines, _) = refused(import(&database, "customers.csv", csv, &["--document-limit", "1KiB"]));
        assert_eq!(lines, [format!("line 2: {}", invalid("front"))]);
    }
}

/// Imports so many customers, and gives the most memory that the program had at one time, in KiB.
fn peak_memory(count: usize) -> u64 {
    let database = shop(Backend::Sqlite);
    let mut content = String::from("email,fn,ln,addr,city\n");
    for number in 0..count {
        let street = format!("{number} Long Street Name That Goes On For Quite A While");
        writeln!(content, "customer-{number}@example.com,Ann,Lee,{street},Stratford").unwrap();
    }
    let file = database.file("customers.csv", content);
    let mut child = program()
        .args(["customer", "import", file.to_str().unwrap(), "--account", "shop"])
        .args(["--store", &database.url])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (ended, end) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut out = String::new();
        stdout.read_to_string(&mut out).unwrap();
        ended.send(out).unwrap();
    });
    // The kernel keeps the peak, as long as the process lives: the last look is as good as all of them.
    let mut peak = 0;
    let out = loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let mark = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kib) = mark.and_then(|mark| mark.split_whitespace().next()) {
            peak = kib.parse().unwrap();
        }
        match end.recv_timeout(Duration::from_millis(10)) {
            Ok(out) => break out,
            Err(error) => assert_eq!(error, mpsc::RecvTimeoutError::Timeout),
        }
    };
    reader.join().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(out, created(count));
    assert!(peak > 0);
    peak
}

/// Both fill SQLite's cache. What the larger file has more is 150,000 customers, some 18 MB as text and a multiple of
/// that in memory; what the allocator keeps of the two varies by some megabytes.
#[test]
fn the_memory_that_an_import_needs_does_not_grow_with_the_file() {
    let (small, large) = (peak_memory(50_000), peak_memory(200_000));
    assert!(large < small + 48 * 1_024, "{small} KiB, then {large} KiB");
}
