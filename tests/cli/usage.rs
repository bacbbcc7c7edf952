//! What the program says about itself, and about a command line that is wrong.

use insta::assert_snapshot;

use crate::support::{Output, program, run};

fn dcams(arguments: &[&str]) -> Output {
    // As wide as the texts may be, whatever terminal the tests run in.
    run(program().env("COLUMNS", "100").args(arguments), "")
}

/// Flags, names of variables and defaults change on purpose only.
#[test]
fn the_help_of_every_command_is_as_agreed() {
    let commands: [&[&str]; 50] = [
        &[],
        &["serve"],
        &["account"],
        &["account", "create"],
        &["account", "list"],
        &["account", "disable"],
        &["account", "enable"],
        &["account", "set-password"],
        &["account", "token"],
        &["account", "token", "create"],
        &["account", "token", "list"],
        &["account", "token", "revoke"],
        &["customer"],
        &["customer", "import"],
        &["customer", "show"],
        &["customer", "set-status"],
        &["customer", "history"],
        &["customer", "export"],
        &["customer", "erase"],
        &["webhook"],
        &["webhook", "add"],
        &["webhook", "list"],
        &["webhook", "remove"],
        &["webhook", "rotate"],
        &["webhook", "test"],
        &["webhook", "parked"],
        &["webhook", "resend"],
        &["audit"],
        &["audit", "seal"],
        &["audit", "verify"],
        &["keys"],
        &["keys", "generate"],
        &["keys", "rotate"],
        &["keys", "encrypt"],
        &["migrate"],
        &["feed"],
        &["openapi"],
        &["explain"],
        &["compat"],
        &["proto"],
        &["store"],
        &["store", "copy"],
        &["config"],
        &["config", "check"],
        &["config", "show"],
        &["config", "example"],
        &["config", "reference"],
        &["health"],
        &["completions"],
        &["man"],
    ];
    let mut text = String::new();
    for command in commands {
        let arguments = [command, &["--help"]].concat();
        text.push_str(&format!("$ dcams-gateway {}\n", arguments.join(" ")));
        text.push_str(&dcams(&arguments).ok());
        text.push('\n');
    }
    assert_snapshot!("help", text);
}

#[test]
fn no_command_is_left_out_of_the_help() {
    for (parent, commands) in [
        (
            &[][..],
            &[
                "serve",
                "account",
                "customer",
                "webhook",
                "audit",
                "keys",
                "migrate",
                "feed",
                "openapi",
                "explain",
                "compat",
                "proto",
                "store",
                "config",
                "health",
                "completions",
                "man",
            ][..],
        ),
        (&["store"], &["copy"]),
        (&["config"], &["check", "show", "example", "reference"]),
        (
            &["account"],
            &["create", "list", "disable", "enable", "token", "set-password"],
        ),
        (&["account", "token"], &["create", "list", "revoke"]),
        (
            &["customer"],
            &["import", "export", "show", "set-status", "history", "erase"],
        ),
        (
            &["webhook"],
            &["add", "list", "remove", "rotate", "test", "parked", "resend"],
        ),
        (&["audit"], &["seal", "verify"]),
        (&["keys"], &["generate", "rotate", "encrypt"]),
    ] {
        let help = dcams(&[parent, &["--help"]].concat()).ok();
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let listed: Vec<_> = listed
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.strip_prefix("  "))
            .filter(|line| !line.starts_with(' '))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert_eq!(listed, [commands, &["help"]].concat());
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    for flag in ["--version", "-V"] {
        assert_eq!(
            dcams(&[flag]).ok(),
            format!("dcams-gateway {}\n", env!("CARGO_PKG_VERSION"))
        );
    }
}

#[test]
fn a_wrong_command_line_is_one_line_and_exit_code_2() {
    let set_status = ["customer", "set-status", "a@example.com", "MAYBE", "--account", "shop"];
    for (arguments, says) in [
        (&["frobnicate"][..], "unrecognized subcommand 'frobnicate'"),
        (&["--frobnicate"], "unexpected argument '--frobnicate'"),
        (&["serve", "--rest-addr", "nonsense"], "--rest-addr <ADDR>"),
        (&["serve", "--ops-addr", "localhost:1"], "--ops-addr <ADDR>"),
        (&["serve", "--max-connections", "0"], "--max-connections <N>"),
        (&["serve", "--write-batch", "-1"], "'-1'"),
        (&["serve", "--drain", "soon"], "a whole number of seconds is needed"),
        (&["serve", "--migrate", "perhaps"], "one of auto, check, off is needed"),
        (&["serve", "--trusted-proxy", "10.0.0.0/8"], "--trusted-proxy <IP>"),
        (&["serve", "--upstream", "http://"], "--upstream <URL>"),
        (
            &["serve", "--demo", "--upstream", "http://127.0.0.1:1"],
            "cannot be used with",
        ),
        (&["account", "create"], "<NAME>"),
        (&["account", "create", "a:b"], "no ':'"),
        (&["customer", "import"], "<FILE>"),
        (&["customer", "show", "a@example.com"], "--account <NAME>"),
        (&set_status, "none of PASS, PENDING, FAIL"),
        (
            &[
                "customer",
                "history",
                "a@example.com",
                "--account",
                "shop",
                "--limit",
                "-1",
            ],
            "'-1'",
        ),
        (
            &["--store", "mysql://h/d", "account", "list"],
            "postgres://USER@HOST/DATABASE",
        ),
        (&["--store", "dcams.db", "account", "list"], "sqlite://PATH"),
        (&["--store", "", "account", "list"], "--store <URL>"),
        (&["--log", "loud", "account", "list"], "'loud'"),
        (&["completions", "nush"], "'nush'"),
        (&["keys", "generate", "--number", "0"], "--number <N>"),
        (&["serve", "--customer-link", "https://a/"], "{id} once in it"),
        (&["serve", "--document-limit", "10MB"], "such as 1048576 or 1MiB"),
        (&["serve", "--document-budget", "0"], "--document-budget <BYTES>"),
        (&["serve", "--retain-documents-for", "90"], "such as 90d"),
        (
            &["--key-file", "a", "account", "list", "--key-command", "b"],
            "only one can be used",
        ),
    ] {
        let line = dcams(arguments).fails(2);
        assert!(line.contains(says), "{arguments:?}: {line}");
        assert!(line.ends_with("(see --help)"), "{arguments:?}: {line}");
    }
}

#[test]
fn a_wrong_variable_is_one_line_and_exit_code_2() {
    for (name, value, says) in [
        ("DCAMS_STORE", "mysql://h/d", "--store <URL>"),
        ("DCAMS_REST_ADDR", "nonsense", "--rest-addr <ADDR>"),
        ("DCAMS_DRAIN", "soon", "--drain <SECONDS>"),
        ("DCAMS_LOG", "loud", "--log <LEVEL>"),
        ("DCAMS_RETAIN_DOCUMENTS_FOR", "long", "--retain-documents-for <AGE>"),
        ("DCAMS_WEBHOOK_ALLOW_PRIVATE", "perhaps", "--webhook-allow-private"),
    ] {
        let line = run(program().arg("serve").env(name, value), "").fails(2);
        assert!(line.contains(says), "{line}");
    }
}

#[test]
fn without_a_command_the_help_is_shown_and_the_exit_code_is_2() {
    for arguments in [&[][..], &["account"], &["customer"]] {
        let output = dcams(arguments);
        assert_eq!((output.code, &*output.out), (2, ""), "{output:?}");
        assert!(output.err.contains("Usage: dcams-gateway"), "{output:?}");
    }
}

#[test]
fn completions_name_every_command_and_touch_no_store() {
    let folder = tempfile::tempdir().unwrap();
    for (shell, marks) in [
        (
            "bash",
            [
                "complete -F _dcams__gateway",
                "dcams__gateway__subcmd__customer__subcmd__set__subcmd__status",
            ],
        ),
        ("zsh", ["#compdef dcams-gateway", "'set-status:Set a customer"]),
        ("fish", ["complete -c dcams-gateway", "-a \"set-status\""]),
    ] {
        let script = run(program().args(["completions", shell]).current_dir(folder.path()), "").ok();
        for mark in marks {
            assert!(script.contains(mark), "{shell}: {mark}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// tests/run is a bash script, so bash is there.
#[test]
fn bash_completes_commands_and_flags() {
    let script = dcams(&["completions", "bash"]).ok();
    let complete = |words: &str| {
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _dcams__gateway dcams-gateway \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"\necho \"${{COMPREPLY[*]}}\""
        );
        let mut bash = std::process::Command::new("bash");
        run(bash.args(["--norc", "-s"]), &ask).ok()
    };
    assert_eq!(complete("dcams-gateway acc"), "account\n");
    assert_eq!(complete("dcams-gateway customer set"), "set-status\n");
    assert_eq!(complete("dcams-gateway serve --rest"), "--rest-addr\n");
}

/// Of the settings it has the most important ones; CONFIGURATION.md has all.
#[test]
fn what_the_readme_says_of_a_setting_is_true() {
    let table = |page: &'static str, first: &'static str| -> Vec<Vec<&str>> {
        let cells = |line: &'static str| {
            line.split('|')
                .skip(1)
                .map(|cell| cell.trim().trim_matches('`'))
                .collect()
        };
        page.lines().filter(|line| line.starts_with(first)).map(cells).collect()
    };
    let settings = table(include_str!("../../CONFIGURATION.md"), "| `");
    let rows = table(include_str!("../../README.md"), "| `--");
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let [flag, variable, default, ..] = row[..] else {
            panic!("{row:?}");
        };
        if flag == "--config" {
            assert_eq!((variable, default), ("DCAMS_CONFIG", ""));
            continue;
        }
        let setting = settings.iter().find(|setting| setting[1] == flag);
        let setting = setting.unwrap_or_else(|| panic!("{flag} is no setting"));
        assert_eq!(variable, setting[2], "{flag}");
        // Where the default depends on something, the text says so.
        if !setting[3].is_empty() {
            assert_eq!(default, setting[3], "{flag}");
        }
    }
}
