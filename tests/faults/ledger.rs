//! What clients asked for, what they know of it, and whether a database holds exactly that.

use std::collections::BTreeMap;

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Integer, Nullable, Text},
};

use crate::{faults::load::email, support::Session};

/// What the client knows of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was answered that the change was made.
    Made,
    /// It was answered that nothing was done.
    Refused,
    /// It was not answered, or so that it may have been made.
    Open,
}

/// A request that was sent, as the client remembers it.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub request_id: String,
    pub status: i32,
    pub fate: Fate,
}

/// What was sent for each customer, in order.
pub type Sent = BTreeMap<String, Vec<Attempt>>;

/// A row of the history.
#[derive(Clone, Debug, QueryableByName)]
pub struct Change {
    #[diesel(sql_type = Text)]
    pub email: String,
    #[diesel(sql_type = BigInt)]
    pub version: i64,
    #[diesel(sql_type = Nullable<Integer>)]
    pub from_status: Option<i32>,
    #[diesel(sql_type = Integer)]
    pub to_status: i32,
    #[diesel(sql_type = Text)]
    pub request_id: String,
}

/// A customer as it is now.
#[derive(Clone, Debug, QueryableByName)]
pub struct Customer {
    #[diesel(sql_type = Text)]
    pub email: String,
    #[diesel(sql_type = Integer)]
    pub status: i32,
    #[diesel(sql_type = BigInt)]
    pub status_version: i64,
}

/// What the database holds.
#[derive(Clone, Debug)]
pub struct Stored {
    pub customers: Vec<Customer>,
    pub changes: Vec<Change>,
}

impl Stored {
    pub fn of(session: &mut Session) -> Self {
        Self {
            customers: session.rows(
                "SELECT email_key AS email, CAST(status AS INTEGER) AS status, status_version FROM customers ORDER BY id",
            ),
            changes: session.rows(
                "SELECT c.email_key AS email, h.version, CAST(h.from_status AS INTEGER) AS from_status,
                        CAST(h.to_status AS INTEGER) AS to_status, h.request_id
                 FROM status_changes h LEFT JOIN customers c ON c.id = h.customer_id ORDER BY h.customer_id, h.version",
            ),
        }
    }
}

/// Whether the database holds what was acknowledged, what may have been made of the rest, and nothing else.
pub fn verify(stored: &Stored, sent: &Sent) -> Result<(), String> {
    let known = stored.customers.iter().map(|customer| &customer.email);
    if !known.clone().eq(sent.keys()) {
        return Err("the customers are not those that were registered".to_owned());
    }
    let rows: usize = known.map(|email| history(stored, email).count()).sum();
    if rows != stored.changes.len() {
        return Err("the history tells of nobody".to_owned());
    }
    for customer in &stored.customers {
        let email = &customer.email;
        verify_one(customer, history(stored, email), &sent[email]).map_err(|fault| format!("{email}: {fault}"))?;
    }
    Ok(())
}

pub fn history<'a>(stored: &'a Stored, email: &'a str) -> impl Iterator<Item = &'a Change> + Clone {
    stored.changes.iter().filter(move |change| change.email == email)
}

fn verify_one<'a>(
    customer: &Customer,
    history: impl Iterator<Item = &'a Change> + Clone,
    sent: &[Attempt],
) -> Result<(), String> {
    let mut status = None;
    let mut version = 0;
    for change in history.clone() {
        version += 1;
        if change.version != version {
            return Err(format!("version {version} is missing before {change:?}"));
        }
        if change.from_status != status || status == Some(change.to_status) {
            return Err(format!("{change:?} does not follow {status:?}"));
        }
        status = Some(change.to_status);
    }
    if (status, version) != (Some(customer.status), customer.status_version) {
        return Err(format!("{customer:?} is not what the history leads to"));
    }
    // The first row is the registration. Each one after it is an attempt, in their order, and only one that was not
    // acknowledged may be left out; one that was refused must be.
    let mut attempts = sent.iter();
    for change in history.skip(1) {
        let made = attempts.find(|attempt| attempt.fate == Fate::Made || attempt.request_id == change.request_id);
        match made {
            Some(attempt) if attempt.fate == Fate::Refused => return Err(format!("{attempt:?} was made after all")),
            Some(attempt) if attempt.request_id == change.request_id && attempt.status == change.to_status => {}
            Some(attempt) => return Err(format!("{attempt:?} is lost, or {change:?} is wrong")),
            None => return Err(format!("nobody asked for {change:?}")),
        }
    }
    match attempts.find(|attempt| attempt.fate == Fate::Made) {
        Some(attempt) => Err(format!("{attempt:?} is lost")),
        None => Ok(()),
    }
}

/// The check is one that fails: with the row of an acknowledged change gone from this very database.
pub fn finds_a_loss(session: &mut Session, sent: &Sent) {
    let (of, lost) = sent
        .iter()
        .find_map(|(email, attempts)| {
            let made = attempts.iter().rfind(|attempt| attempt.fate == Fate::Made)?;
            Some((email, &made.request_id))
        })
        .unwrap();
    session.execute(&format!("DELETE FROM status_changes WHERE request_id = '{lost}'"));
    let fault = verify(&Stored::of(session), sent).unwrap_err();
    assert!(fault.starts_with(of.as_str()), "{fault}");
}

/// What the check says of a sound database after something was done to it, or to what was sent.
fn verdict(spoil: impl FnOnce(&mut Stored, &mut Vec<Attempt>)) -> Result<(), String> {
    let attempt = |id: &str, status, fate| Attempt {
        request_id: id.to_owned(),
        status,
        fate,
    };
    let change = |version, from_status, to_status, id: &str| Change {
        email: email(0),
        version,
        from_status,
        to_status,
        request_id: id.to_owned(),
    };
    // Pending at first; `b` was lost on the way, `d` was made although nobody heard of it.
    let mut attempts = vec![
        attempt("a", 3, Fate::Made),
        attempt("b", 1, Fate::Open),
        attempt("c", 1, Fate::Made),
        attempt("d", 2, Fate::Open),
    ];
    let mut stored = Stored {
        customers: vec![Customer {
            email: email(0),
            status: 2,
            status_version: 4,
        }],
        changes: vec![
            change(1, None, 2, "import"),
            change(2, Some(2), 3, "a"),
            change(3, Some(3), 1, "c"),
            change(4, Some(1), 2, "d"),
        ],
    };
    spoil(&mut stored, &mut attempts);
    verify(&stored, &Sent::from([(email(0), attempts)]))
}

#[test]
fn the_check_accepts_what_may_be() {
    assert_eq!(verdict(|_, _| {}), Ok(()));
    // Nor need the last attempt have been made.
    let without = verdict(|stored, _| {
        stored.changes.pop();
        stored.customers[0].status = 1;
        stored.customers[0].status_version = 3;
    });
    assert_eq!(without, Ok(()));
}

#[test]
fn the_check_finds_every_kind_of_loss() {
    type Spoil = fn(&mut Stored, &mut Vec<Attempt>);
    let cases: [(&str, Spoil); 12] = [
        ("a change without its row", |stored, _| {
            stored.changes.pop();
        }),
        ("a row without its change", |stored, _| stored.customers[0].status = 1),
        ("a row too few", |stored, _| {
            stored.changes.remove(1);
        }),
        ("a version twice", |stored, _| stored.changes[2].version = 2),
        ("a broken chain", |stored, _| stored.changes[2].from_status = Some(2)),
        ("a change to the same", |stored, _| {
            stored.changes[3].to_status = 1;
            stored.customers[0].status = 1;
        }),
        ("a version that does not count", |stored, _| {
            stored.customers[0].status_version = 5
        }),
        ("a lost acknowledged change, all else sound", |stored, _| {
            stored.changes.truncate(2);
            stored.customers[0].status = 3;
            stored.customers[0].status_version = 2;
        }),
        ("a change that nobody asked for", |_, attempts| {
            attempts.pop();
        }),
        ("a change that was refused", |_, attempts| {
            attempts[3].fate = Fate::Refused;
        }),
        ("the change of another request", |stored, _| {
            stored.changes[1].request_id = "b".to_owned()
        }),
        ("a row of a customer that is not there", |stored, _| {
            stored.changes[3].email = email(1);
            stored.customers[0].status = 1;
            stored.customers[0].status_version = 3;
        }),
    ];
    for (case, spoil) in cases {
        assert!(verdict(spoil).is_err(), "{case}");
    }
}
