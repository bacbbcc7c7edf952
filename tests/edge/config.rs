//! The configuration: its file, what wins over what, and what is said when it is wrong.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::support::{Backend, Gateway, Output, program, run};

/// A folder with files of configuration.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), PermissionsExt::from_mode(0o600)).unwrap();
        self.path(name).display().to_string()
    }

    /// The program, in this folder.
    fn program(&self) -> Command {
        let mut command = program();
        command.current_dir(self.0.path());
        command
    }

    fn dcams(&self, arguments: &[&str]) -> Output {
        run(self.program().args(arguments), "")
    }
}

/// What `config show` says of a key, with where it comes from.
fn line<'a>(shown: &'a str, key: &str) -> &'a str {
    let of_key = |line: &&str| line.trim_start_matches('#').split(' ').next() == Some(key);
    let mut lines = shown.lines().filter(of_key);
    let line = lines.next().unwrap_or_else(|| panic!("{key} is missing: {shown}"));
    assert_eq!(lines.next(), None, "{key} is there twice");
    line
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let folder = Folder::new();
    let file = folder.write("c.toml", "# a comment\nwrite_batch = 2\n");
    let show = |arguments: &[&str], variable: Option<&str>| {
        let mut command = folder.program();
        command.args(["config", "show"]).args(arguments);
        if let Some(value) = variable {
            command.env("DCAMS_WRITE_BATCH", value);
        }
        line(&run(&mut command, "").ok(), "write_batch").to_owned()
    };
    let from_file = ["--config", &file];
    let all = [&from_file[..], &["--write-batch", "4"]].concat();
    assert_eq!(show(&[], None), "#write_batch = 256  # default");
    assert_eq!(show(&from_file, None), "write_batch = 2  # file, line 2");
    assert_eq!(
        show(&from_file, Some("3")),
        "write_batch = 3  # environment, DCAMS_WRITE_BATCH"
    );
    assert_eq!(show(&all, Some("3")), "write_batch = 4  # flag, --write-batch");
    assert_eq!(show(&all, None), "write_batch = 4  # flag, --write-batch");
}

#[test]
fn a_list_and_a_switch_win_whole() {
    let folder = Folder::new();
    let file = folder.write(
        "c.toml",
        "trusted_proxy = [\"10.0.0.1\", \"10.0.0.2\"]\nwebhook_allow_private = true\n",
    );
    let shown = folder.dcams(&["--config", &file, "config", "show"]).ok();
    assert_eq!(
        line(&shown, "trusted_proxy"),
        "trusted_proxy = [\"10.0.0.1\", \"10.0.0.2\"]  # file, line 1"
    );
    assert_eq!(
        line(&shown, "webhook_allow_private"),
        "webhook_allow_private = true  # file, line 2"
    );
    let mut command = folder.program();
    command
        .env("DCAMS_CONFIG", &file)
        .env("DCAMS_TRUSTED_PROXIES", "10.0.0.3,10.0.0.4")
        .env("DCAMS_WEBHOOK_ALLOW_PRIVATE", "off");
    let shown = run(command.args(["config", "show"]), "").ok();
    assert_eq!(
        line(&shown, "trusted_proxy"),
        "trusted_proxy = [\"10.0.0.3\", \"10.0.0.4\"]  # environment, DCAMS_TRUSTED_PROXIES"
    );
    assert_eq!(
        line(&shown, "webhook_allow_private"),
        "webhook_allow_private = false  # environment, DCAMS_WEBHOOK_ALLOW_PRIVATE"
    );
}

/// A gateway is told by its file alone where its store is, and each command finds it there too.
#[test]
fn serve_and_the_other_commands_take_the_same_file() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let folder = Folder::new();
        let config = folder.write(
            "c.toml",
            &format!("store = \"{}\"\ndemo = true\nlog = \"error\"\n", database.url),
        );
        let gateway = Gateway::configured(&config);
        assert!(gateway.banner.contains("USERNAME"), "{}", gateway.banner);
        let accounts = folder.dcams(&["account", "list", "--config", &config]).ok();
        assert!(accounts.contains("USERNAME"), "{accounts}");
        // What the file says of the log counts too: without it, a store in clear text is warned of.
        let stopped = gateway.stop();
        assert_eq!((stopped.code, &*stopped.err), (0, ""), "{stopped:?}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_one_line_that_names_it() {
    let folder = Folder::new();
    for (text, says) in [
        (
            "\nrest_adr = \"127.0.0.1:1\"",
            "line 2: there is no key \"rest_adr\"; rest_addr may be meant",
        ),
        ("zzz = 1", "line 1: there is no key \"zzz\""),
        (
            "[serve]\nrest_addr = \"127.0.0.1:1\"",
            "line 1: there is no key \"serve\"",
        ),
        // Flags that are for tests, or for the command line alone.
        ("webhook_lease = 1", "there is no key \"webhook_lease\""),
        ("config = \"c.toml\"", "there is no key \"config\""),
        ("help = true", "there is no key \"help\""),
        ("demo = \"yes\"", "line 1: demo: true or false is needed"),
        ("demo = 1", "demo: true or false is needed"),
        ("trusted_proxy = \"10.0.0.1\"", "trusted_proxy: a list is needed"),
        ("trusted_proxy = [true]", "trusted_proxy: a list of texts is needed"),
        (
            "trusted_proxy = [\"10.0.0.1\", \"10.0.0.0/8\"]",
            "trusted_proxy = \"10.0.0.0/8\": invalid IP address",
        ),
        ("rest_addr = true", "rest_addr: a text or a number is needed"),
        (
            "rest_addr = [\"127.0.0.1:1\"]",
            "rest_addr: a text or a number is needed",
        ),
        (
            "rest_addr = 8080",
            "line 1: rest_addr = \"8080\": invalid socket address",
        ),
        (
            "max_connections = 0",
            "max_connections = \"0\": a whole number from 1 to 1000000",
        ),
        ("max_connections = 1.5", "max_connections = \"1.5\": a whole number"),
        (
            "log = \"loud\"",
            "log = \"loud\": one of error, warn, info, debug, trace is needed",
        ),
        ("log = \"\"", "log = \"\": one of error"),
        ("demo = true\ndemo = false", "line 2: duplicate key"),
        ("demo = true\n\nlog = info", "a text stands in quotes"),
        ("demo = true\n\nlog = warn", "line 3: string values must be quoted"),
        ("log = \"info", "line 1: "),
        ("store = \"sqlite://a\"\nstore_file = \"b\"", "only one can be used"),
        ("key_file = \"a\"\nkey_command = \"b\"", "only one can be used"),
    ] {
        let file = folder.write("c.toml", text);
        let wrong = folder.dcams(&["serve", "--config", &file]).fails(2);
        assert!(wrong.contains(says), "{text:?}: {wrong}");
        if !says.contains("only one") {
            assert!(wrong.starts_with(&file), "{text:?}: {wrong}");
        }
    }
    let absent = folder.path("absent.toml").display().to_string();
    let wrong = folder.dcams(&["serve", "--config", &absent]).fails(2);
    assert!(wrong.contains("absent.toml: No such file"), "{wrong}");
    let latin = folder.path("latin.toml");
    fs::write(&latin, b"log = \"\xe9\"").unwrap();
    let wrong = folder
        .dcams(&["serve", "--config", &latin.display().to_string()])
        .fails(2);
    assert!(wrong.contains("latin.toml: it is not UTF-8"), "{wrong}");
}

#[test]
fn what_cannot_go_together_is_refused_wherever_it_comes_from() {
    let folder = Folder::new();
    let upstream = folder.write("up.toml", "log = \"info\"\nupstream = \"http://127.0.0.1:1\"\n");
    let demo = folder.write("demo.toml", "demo = true\n");
    for (arguments, variable, place) in [
        (
            &["serve", "--config", &upstream, "--demo"][..],
            None,
            "upstream is set in",
        ),
        (
            &["serve", "--config", &demo, "--upstream", "http://h:1"],
            None,
            "demo is set in",
        ),
        (&["serve", "--config", &demo], Some("http://h:1"), "demo is set in"),
    ] {
        let mut command = folder.program();
        if let Some(value) = variable {
            command.env("DCAMS_UPSTREAM", value);
        }
        let wrong = run(command.args(arguments), "").fails(2);
        assert!(wrong.contains("cannot be used with"), "{wrong}");
        assert!(wrong.contains(place) && wrong.contains(".toml, line "), "{wrong}");
    }
    // What is wrong with the command line is not blamed on the file.
    let wrong = folder.dcams(&["serve", "--config", &upstream, "--frobnicate"]).fails(2);
    assert!(wrong.contains("'--frobnicate'") && !wrong.contains(".toml"), "{wrong}");
    // A flag may be given once, and a key of the file does not count as one more.
    let shown = folder
        .dcams(&["config", "show", "--config", &upstream, "--log", "warn"])
        .ok();
    assert_eq!(line(&shown, "log"), "log = \"warn\"  # flag, --log");
    folder
        .dcams(&["config", "show", "--log", "warn", "--log", "info"])
        .fails(2);
}

#[test]
fn a_command_minds_its_own_keys_and_knows_the_others() {
    let folder = Folder::new();
    let file = folder.write("c.toml", "rest_addr = \"nonsense\"\nlog = \"error\"\n");
    assert_eq!(folder.dcams(&["account", "list", "--config", &file]).ok(), "");
    let wrong = folder.dcams(&["serve", "--config", &file]).fails(2);
    assert!(wrong.contains("line 1: rest_addr"), "{wrong}");
    let file = folder.write("c.toml", "rest_adr = \"127.0.0.1:1\"\n");
    let wrong = folder.dcams(&["account", "list", "--config", &file]).fails(2);
    assert!(wrong.contains("there is no key \"rest_adr\""), "{wrong}");
    // A setting that a command shares with `serve`: the image is 1 KiB too large for it.
    let file = folder.write("c.toml", "document_limit = \"1KiB\"\n");
    folder.dcams(&["account", "create", "shop"]).ok();
    fs::write(
        folder.path("front.jpg"),
        [&[0xff, 0xd8, 0xff][..], &[0; 2 * 1024]].concat(),
    )
    .unwrap();
    folder.write("a.csv", "email,front\na@example.com,front.jpg\n");
    let import = ["customer", "import", "a.csv", "--account", "shop"];
    let refused = folder.dcams(&[&import[..], &["--config", &file]].concat());
    assert_ne!(refused.code, 0, "{refused:?}");
    folder.dcams(&import).ok();
}

const SECRETS: &str = "\
store = \"postgres://app:hush-1@db.example/dcams?sslpassword=hush-2\"
key_command = \"vault --token=hush-3 https://vault.example\"
upstream = \"http://u:hush-4@127.0.0.1:1\"
";

#[test]
fn secrets_are_shown_nowhere() {
    let folder = Folder::new();
    let file = folder.write("c.toml", SECRETS);
    let shown = folder.dcams(&["config", "show", "--config", &file]).ok();
    assert!(!shown.contains("hush"), "{shown}");
    assert_eq!(
        line(&shown, "store"),
        "store = \"postgres://app:********@db.example/dcams?sslpassword=********\"  # file, line 1"
    );
    assert_eq!(
        line(&shown, "key_command"),
        "key_command = \"********\"  # file, line 2"
    );
    // Nor when something is wrong with them.
    for text in [
        SECRETS.replace("postgres://", "mysql://"),
        SECRETS.replace("postgres://", "postgres:"),
        SECRETS.replace("http://", "http:// "),
        SECRETS.replace("?sslpassword=hush-2\"", ""),
        SECRETS.replace("key_command = ", "key_command = true #"),
        format!("{SECRETS}demo = true\n"),
        format!("{SECRETS}store_file = \"a\"\n"),
        format!("{SECRETS}store = \"postgres://app:hush-5@h/d\"\n"),
    ] {
        let file = folder.write("c.toml", &text);
        for arguments in [&["serve"][..], &["config", "check"], &["config", "show"]] {
            let wrong = folder.dcams(&[arguments, &["--config", &file]].concat());
            assert_eq!(wrong.code, 2, "{text}: {wrong:?}");
            assert!(!format!("{wrong:?}").contains("hush"), "{wrong:?}");
        }
    }
    // A value that is not shown is not quoted either when it comes from elsewhere.
    let mut command = folder.program();
    command.env("DCAMS_STORE", "postgres:app:hush@h");
    let wrong = run(command.arg("serve"), "").fails(2);
    assert!(!wrong.contains("hush") && wrong.contains("--store <URL>"), "{wrong}");
}

#[test]
fn a_check_says_each_thing_that_is_wrong() {
    let folder = Folder::new();
    let file = folder.write(
        "c.toml",
        "rest_adr = \"127.0.0.1:1\"\nlog = \"loud\"\ndemo = 1\nstore = \"mysql://u:hush@h/d\"\nreaders = 4\n",
    );
    let mut command = folder.program();
    command
        .env("DCAMS_DRAIN", "soon")
        .env("DCAMS_WEBHOOK_ALLOW_PRIVATE", "perhaps")
        .env("DCAMS_READERS", "8");
    let checked = run(command.args(["config", "check", &file]), "");
    assert_eq!((checked.code, &*checked.out), (2, ""), "{checked:?}");
    let lines: Vec<&str> = checked.err.lines().collect();
    let said = [
        "error: DCAMS_WEBHOOK_ALLOW_PRIVATE = \"perhaps\": ",
        "error: DCAMS_DRAIN = \"soon\": a whole number of seconds is needed",
        &format!("error: {file}, line 1: there is no key \"rest_adr\""),
        &format!("error: {file}, line 2: log = \"loud\": one of"),
        &format!("error: {file}, line 3: demo: true or false is needed"),
        &format!("error: {file}, line 4: store: a store is sqlite://PATH"),
    ];
    assert_eq!(lines.len(), said.len(), "{checked:?}");
    for (line, start) in lines.iter().zip(said) {
        assert!(line.starts_with(start), "{line}");
    }
    // Everybody else says the first thing, and where the rest is found.
    let wrong = folder.dcams(&["serve", "--config", &file]).fails(2);
    assert!(
        wrong.starts_with(&format!("{file}, line 1: there is no key")),
        "{wrong}"
    );
    assert!(
        wrong.ends_with("(and 3 more: `dcams-gateway config check` has them all)"),
        "{wrong}"
    );
}

/// What is right by itself, and still would not serve.
#[test]
fn a_check_looks_at_what_serve_would_refuse() {
    let folder = Folder::new();
    folder.write("keys", "nonsense\n");
    for (text, says) in [
        (
            "demo = true\nrest_addr = \"0.0.0.0:8080\"",
            "--demo serves on loopback only",
        ),
        ("upstream = \"ftp://h:1\"", "--upstream needs a URL"),
        ("otlp_endpoint = \"ftp://h:1\"", "--otlp-endpoint needs a URL"),
        (
            "otlp_endpoint = \"https://h:1\"\notlp_ca = \"absent\"",
            "TLS to the collector: cannot read absent",
        ),
        ("key_file = \"absent\"", "the key file absent: No such file"),
        ("key_file = \"keys\"", "line 1"),
        ("store_file = \"absent\"", "the store file absent: No such file"),
        ("store_file = \"keys\"", "a store is sqlite://PATH"),
        ("store_file = \"keys\"\nstore = \"sqlite://a\"", "only one can be used"),
    ] {
        let file = folder.write("c.toml", text);
        let wrong = folder.dcams(&["config", "check", &file]).fails(2);
        assert!(wrong.contains(says), "{text}: {wrong}");
    }
    let file = folder.write("c.toml", "log = \"warn\"\nreaders = 2\n");
    let good = folder.dcams(&["config", "check", &file]).ok();
    assert_eq!(good, format!("{file} is good: 2 keys count\n"));
    let good = folder.dcams(&["config", "check"]).ok();
    assert_eq!(good, "the environment is good; no file is named\n");
    assert!(!folder.path("dcams.db").exists(), "a check opens no store");
}

#[test]
fn what_is_shown_can_be_used_as_a_file_and_shows_the_same() {
    let folder = Folder::new();
    let file = folder.write(
        "c.toml",
        "store = 'sqlite://a \"b\" \\ c.db'\nwrite_batch = 0x10\ndemo = true\ntrusted_proxy = [\"10.0.0.1\", \"::1\"]\n\
         drain = \"7\"\nretain_documents_for = \"90d\"\nkey_file = \"17\"\nlog = \"warn\"\n",
    );
    let mut command = folder.program();
    command.env("DCAMS_READERS", "9");
    let arguments = ["config", "show", "--config", &file, "--streams", "3"];
    let shown = run(command.args(arguments), "").ok();
    let again = folder.write("again.toml", &shown);
    let shown_again = folder.dcams(&["config", "show", "--config", &again]).ok();
    let values = |shown: &str| -> Vec<String> {
        let of_line = |line: &str| line.rsplit_once("  # ").map_or(line, |(value, _)| value).to_owned();
        shown.lines().skip(1).map(of_line).collect()
    };
    assert_eq!(values(&shown), values(&shown_again));
    for part in [
        "store = 'sqlite://a \"b\" \\ c.db'",
        "write_batch = 16",
        "readers = 9",
        "streams = 3",
        "key_file = 17",
        "#rest_addr = ",
        "#writers =",
    ] {
        assert!(
            values(&shown).iter().any(|value| value.starts_with(part)),
            "{part}: {shown}"
        );
    }
    // But not with a mask in place of a secret.
    let secret = folder.write("secret.toml", SECRETS);
    let shown = folder.dcams(&["config", "show", "--config", &secret]).ok();
    let again = folder.write("again.toml", &shown);
    let wrong = folder.dcams(&["config", "show", "--config", &again]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert!(wrong.err.contains("store: the secret is needed"), "{wrong:?}");
}

#[test]
fn the_example_is_a_file_that_changes_nothing_and_names_every_key() {
    let folder = Folder::new();
    let example = folder.dcams(&["config", "example"]).ok();
    let file = folder.write("c.toml", &example);
    let plain = folder.dcams(&["config", "show"]).ok();
    let shown = folder.dcams(&["config", "show", "--config", &file]).ok();
    let keys = |shown: &str| shown.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(keys(&plain), keys(&shown));
    // Its defaults hold when they are said out loud.
    let is_default = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && line.contains(" = ");
    let spoken: Vec<String> = plain
        .lines()
        .filter(|line| line.ends_with("  # default"))
        .map(|line| line[1..].to_owned())
        .collect();
    let file = folder.write("spoken.toml", &spoken.join("\n"));
    folder.dcams(&["config", "check", &file]).ok();
    let named: Vec<&str> = example
        .lines()
        .filter(is_default)
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    let shown: Vec<&str> = plain
        .lines()
        .filter(|line| line.contains(" =") && line.starts_with('#') && !line.starts_with("# "))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(named, shown);
}

/// With UPDATE=1 the page is written anew.
#[test]
fn the_table_of_the_configuration_is_true() {
    let folder = Folder::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../CONFIGURATION.md");
    let printed = folder.dcams(&["config", "reference"]).ok();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &printed).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap();
    assert!(page == printed, "CONFIGURATION.md is old: run this test with UPDATE=1");
    // Each flag of the help has its row, and nothing else has.
    let help = folder.dcams(&["serve", "--help"]).ok();
    let mut flags: Vec<&str> = help
        .lines()
        .filter_map(|line| line.trim().strip_prefix("--"))
        .filter_map(|line| line.split([' ', '<']).next())
        .filter(|flag| *flag != "config")
        .collect();
    let mut rows: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | `--")?.1.split('`').next())
        .collect();
    flags.sort_unstable();
    rows.sort_unstable();
    assert_eq!(rows, flags);
}

#[test]
fn the_url_of_the_store_may_be_in_a_file() {
    for backend in Backend::BOTH {
        let database = backend.database();
        let folder = Folder::new();
        let file = folder.write("url", &format!("  {}\n", database.url));
        let create = ["account", "create", "shop", "--store-file", &file];
        folder.dcams(&create).ok();
        let mut command = folder.program();
        command.env("DCAMS_STORE_FILE", &file);
        let listed = run(command.args(["account", "list"]), "");
        assert!(listed.out.contains("shop") && listed.err.is_empty(), "{listed:?}");
        // It is the one that was meant, and none beside it.
        assert!(!folder.path("dcams.db").exists());
        let listed = folder.dcams(&["account", "list", "--store", &database.url]).ok();
        assert!(listed.contains("shop"), "{listed}");
        let both = ["account", "list", "--store", &database.url, "--store-file", &file];
        let wrong = folder.dcams(&both).fails(2);
        assert!(wrong.contains("only one can be used"), "{wrong}");
    }
    let folder = Folder::new();
    let bad = folder.write("bad", "mysql://u:hush@h/d");
    let wrong = folder.dcams(&["account", "list", "--store-file", &bad]).fails(1);
    assert!(
        wrong.contains("a store is sqlite://PATH") && !wrong.contains("hush"),
        "{wrong}"
    );
    fs::set_permissions(&bad, PermissionsExt::from_mode(0o644)).unwrap();
    let warned = folder.dcams(&["account", "list", "--store-file", &bad]);
    assert!(warned.err.contains("can be read by others"), "{warned:?}");
}
