//! A database past the program: what is really stored, and locks that make the program wait.

use diesel::{
    Connection, PgConnection, QueryableByName, RunQueryDsl, SqliteConnection, connection::SimpleConnection, pg::Pg,
    sql_query, sql_types::BigInt, sqlite::Sqlite,
};

use super::{Backend, Database};

/// A connection of the test's own.
pub enum Session {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

impl Session {
    pub(super) fn open(database: &Database) -> Self {
        let mut session = match database.backend {
            Backend::Sqlite => {
                let path = database.url.strip_prefix("sqlite://").unwrap();
                Self::Sqlite(SqliteConnection::establish(path).unwrap())
            }
            Backend::Postgres => Self::Postgres(PgConnection::establish(&database.url).unwrap()),
        };
        if let Self::Sqlite(_) = session {
            session.execute("PRAGMA busy_timeout = 30000");
        }
        session
    }

    /// Executes statements.
    pub fn execute(&mut self, sql: &str) {
        match self {
            Self::Sqlite(connection) => connection.batch_execute(sql).unwrap(),
            Self::Postgres(connection) => connection.batch_execute(sql).unwrap(),
        }
    }

    /// The rows of a query, by the names of their columns.
    pub fn rows<T: QueryableByName<Sqlite> + QueryableByName<Pg> + 'static>(&mut self, sql: &str) -> Vec<T> {
        match self {
            Self::Sqlite(connection) => sql_query(sql).load(connection).unwrap(),
            Self::Postgres(connection) => sql_query(sql).load(connection).unwrap(),
        }
    }

    /// Evaluates an expression that is a number, such as a count in brackets.
    #[track_caller]
    pub fn number(&mut self, expression: &str) -> i64 {
        let rows: Vec<Number> = self.rows(&format!("SELECT CAST({expression} AS BIGINT) AS value"));
        rows[0].value
    }

    /// Makes every change of a customer wait, and lets reads pass, until [`Self::release`] or the end of the session.
    pub fn hold_customers(&mut self) {
        match self {
            Self::Sqlite(_) => self.execute("BEGIN IMMEDIATE"),
            Self::Postgres(_) => self.execute("BEGIN; LOCK TABLE customers IN EXCLUSIVE MODE"),
        }
    }

    /// The same, from the beginning of the session.
    pub fn holding_customers(mut self) -> Self {
        self.hold_customers();
        self
    }

    /// Lets those who wait go on.
    pub fn release(&mut self) {
        self.execute("ROLLBACK");
    }
}
