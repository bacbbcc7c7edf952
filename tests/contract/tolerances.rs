//! What is taken although it strays from the seed document, because some old client does it.

use super::{Configuration, Deployment, check, documented::JOHN, documented::READ, posted, rows, shared};
use crate::support::dcams;

#[test]
fn what_old_clients_send_is_understood() {
    let mut rows = shared(rows::tolerances());
    rows.extend(posted([(
        "escapes",
        r#"{"\u0075ser":"\u0055SERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"test\u0040veratad.com"}}"#,
    )]));
    check("tolerances", JOHN, &rows);
}

#[test]
fn a_get_status_that_brings_a_status_is_counted_and_leaves_no_trace() {
    const COUNTED: &str = r#"dcams_tolerated_total{kind="status_on_get","#;
    for configuration in Configuration::ALL {
        let database = configuration.backend.database();
        database.create_account("USERNAME", "PASSWORD");
        database.import("USERNAME", JOHN);
        let deployment = Deployment::start(configuration, database, &[]);
        let counted = || {
            let metrics = deployment.face().get("/metrics");
            // Of whatever account: a facade elsewhere learns whose it is only where it is trusted.
            let values = metrics.text().lines().filter(|line| line.starts_with(COUNTED));
            let values = values.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap());
            values.sum::<u64>()
        };
        let history = || {
            let arguments = ["customer", "history", "test@veratad.com", "--account", "USERNAME"];
            dcams(&deployment.database, &arguments, "").ok()
        };

        let before = history();
        let reply = deployment.face().post(READ);
        assert_eq!(counted(), 0, "{configuration}");
        let with_status = READ.replace("}}", r#","status":"FAIL"}}"#);
        assert_eq!(deployment.face().post(with_status).body, reply.body, "{configuration}");
        assert_eq!(counted(), 1, "{configuration}");
        assert_eq!(history(), before, "{configuration}");
    }
}
