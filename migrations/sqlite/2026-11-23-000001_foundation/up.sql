-- Times are microseconds since 1970 UTC. Statuses are 1 PASS, 2 PENDING, 3 FAIL. Faces are 1 rest, 2 grpc, 3 cli.
-- Checks say BETWEEN and not IN: for a list SQLite builds a table of its own with every row that is written.

CREATE TABLE accounts (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    name               TEXT    NOT NULL UNIQUE,
    password_hash      TEXT    NOT NULL,
    -- Grows with every change of password, enabled or disabled: what was verified before no longer counts.
    credential_version INTEGER NOT NULL,
    enabled            INTEGER NOT NULL CHECK (enabled BETWEEN 0 AND 1),
    create_time        INTEGER NOT NULL,
    update_time        INTEGER NOT NULL
) STRICT;

CREATE TABLE customers (
    -- AUTOINCREMENT: the id of a customer that is gone must not come back to its history.
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id     INTEGER NOT NULL REFERENCES accounts (id),
    email_key      TEXT    NOT NULL,
    public_id      TEXT    NOT NULL,
    reference      TEXT    NOT NULL,
    -- The personal attributes, as one JSON record.
    profile        TEXT    NOT NULL,
    status         INTEGER NOT NULL CHECK (status BETWEEN 1 AND 3),
    -- The number of rows that status_changes holds for the customer.
    status_version INTEGER NOT NULL,
    -- Grows with every change of the row.
    revision       INTEGER NOT NULL,
    create_time    INTEGER NOT NULL,
    update_time    INTEGER NOT NULL,
    UNIQUE (account_id, email_key)
) STRICT;

-- No foreign keys: the history outlives what it tells of.
CREATE TABLE status_changes (
    position    INTEGER PRIMARY KEY,
    account_id  INTEGER NOT NULL,
    customer_id INTEGER NOT NULL,
    -- Dense from 1 for each customer.
    version     INTEGER NOT NULL,
    -- Null when the customer was created.
    from_status INTEGER CHECK (from_status BETWEEN 1 AND 3),
    to_status   INTEGER NOT NULL CHECK (to_status BETWEEN 1 AND 3),
    actor       TEXT    NOT NULL,
    face        INTEGER NOT NULL CHECK (face BETWEEN 1 AND 3),
    request_id  TEXT    NOT NULL,
    change_time INTEGER NOT NULL,
    UNIQUE (customer_id, version)
) STRICT;
