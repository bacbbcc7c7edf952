-- SQLite changes no column's type: the table is made anew. Nothing refers to it.
CREATE TABLE customers_2 (
    -- AUTOINCREMENT: the id of a customer that is gone must not come back to its history.
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id     INTEGER NOT NULL REFERENCES accounts (id),
    -- The key of the email address; in an encrypted store its blind index.
    email_key      TEXT    NOT NULL,
    public_id      TEXT    NOT NULL,
    reference      TEXT    NOT NULL,
    -- The personal attributes, as one JSON record; in an encrypted store sealed.
    profile        BLOB    NOT NULL,
    -- The customer's own key, wrapped; null in a store that is not encrypted.
    data_key       BLOB,
    status         INTEGER NOT NULL CHECK (status BETWEEN 1 AND 3),
    -- The number of rows that status_changes holds for the customer.
    status_version INTEGER NOT NULL,
    -- Grows with every change of the row.
    revision       INTEGER NOT NULL,
    create_time    INTEGER NOT NULL,
    update_time    INTEGER NOT NULL,
    UNIQUE (account_id, email_key)
) STRICT;

INSERT INTO customers_2
SELECT id, account_id, email_key, public_id, reference, CAST(profile AS BLOB), NULL, status, status_version, revision,
       create_time, update_time
FROM customers;

-- The highest id that was ever given must not be forgotten with the old table.
UPDATE sqlite_sequence SET seq = (SELECT seq FROM sqlite_sequence WHERE name = 'customers') WHERE name = 'customers_2';
INSERT INTO sqlite_sequence (name, seq)
SELECT 'customers_2', seq FROM sqlite_sequence
WHERE name = 'customers' AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'customers_2');

DROP TABLE customers;
ALTER TABLE customers_2 RENAME TO customers;

-- The images of identity documents, apart from the customers: only those who ask for them read them.
CREATE TABLE documents (
    customer_id INTEGER NOT NULL,
    -- 1 front, 2 back.
    kind        INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 2),
    -- In an encrypted store sealed.
    content     BLOB    NOT NULL,
    upload_time INTEGER NOT NULL,
    PRIMARY KEY (customer_id, kind)
) STRICT;

CREATE INDEX documents_by_upload_time ON documents (upload_time);

-- Who erased a customer, and when: proof, with nothing personal in it. The history of its status stays.
CREATE TABLE erasures (
    customer_id INTEGER PRIMARY KEY,
    account_id  INTEGER NOT NULL,
    public_id   TEXT    NOT NULL,
    actor       TEXT    NOT NULL,
    face        INTEGER NOT NULL CHECK (face BETWEEN 1 AND 3),
    request_id  TEXT    NOT NULL,
    erase_time  INTEGER NOT NULL
) STRICT;

-- At most one row; without it the store is not encrypted.
CREATE TABLE encryption (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    -- 1 being encrypted, 2 encrypted.
    state     INTEGER NOT NULL CHECK (state BETWEEN 1 AND 2),
    -- The key of the blind index, wrapped by a master key, which is never here.
    index_key BLOB    NOT NULL
) STRICT;
