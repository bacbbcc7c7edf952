//! Statements of a test's own, on a connection beside the program's.

use diesel::{
    Connection, PgConnection, QueryableByName, RunQueryDsl, SqliteConnection, connection::SimpleConnection, sql_query,
    sql_types::BigInt,
};

use super::{Backend, Database};

/// A connection to a database, beside those of what is tested.
pub enum Sql {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

impl Sql {
    pub fn open(database: &Database) -> Self {
        match database.backend {
            Backend::Sqlite => {
                let path = database.path(Database::FILE);
                let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
                // What is tested may be writing just now.
                connection.batch_execute("PRAGMA busy_timeout = 30000").unwrap();
                Self::Sqlite(connection)
            }
            Backend::Postgres => Self::Postgres(PgConnection::establish(&database.url).unwrap()),
        }
    }

    /// Runs statements.
    #[track_caller]
    pub fn run(&mut self, statements: &str) {
        match self {
            Self::Sqlite(connection) => connection.batch_execute(statements),
            Self::Postgres(connection) => connection.batch_execute(statements),
        }
        .unwrap();
    }

    /// Evaluates an expression that is a number, such as a count in brackets.
    #[track_caller]
    pub fn number(&mut self, expression: &str) -> i64 {
        let query = sql_query(format!("SELECT CAST({expression} AS BIGINT) AS value"));
        let row: Number = match self {
            Self::Sqlite(connection) => query.get_result(connection),
            Self::Postgres(connection) => query.get_result(connection),
        }
        .unwrap();
        row.value
    }
}

/// Keeps every change of a customer waiting until it is released.
pub struct Hold(Sql);

impl Hold {
    pub fn on(database: &Database) -> Self {
        let mut sql = database.sql();
        sql.run(match database.backend {
            Backend::Sqlite => "BEGIN IMMEDIATE",
            Backend::Postgres => "BEGIN; SELECT 1 FROM customers FOR UPDATE",
        });
        Self(sql)
    }

    pub fn release(mut self) {
        self.0.run("ROLLBACK");
    }
}
