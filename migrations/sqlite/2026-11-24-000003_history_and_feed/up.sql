-- What a row tells of: 1 a change of status, 2 the erasure of the customer, which leaves the status as it was.
ALTER TABLE status_changes ADD COLUMN kind INTEGER NOT NULL DEFAULT 1 CHECK (kind BETWEEN 1 AND 2);

-- Why the status was changed, as the caller put it.
ALTER TABLE status_changes ADD COLUMN reason TEXT;

-- The order in which nothing is missed is (epoch, xid, position). One writes at a time here, so position alone would do; the
-- others are for rows that were copied from PostgreSQL.
ALTER TABLE status_changes ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE status_changes ADD COLUMN xid INTEGER NOT NULL DEFAULT 0;

-- Behind each entry stands the position.
CREATE INDEX status_changes_in_feed_order ON status_changes (account_id, epoch, xid);
CREATE INDEX status_changes_by_time ON status_changes (account_id, change_time);

-- One row.
CREATE TABLE feed (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    -- Names the store in the cursors that it hands out.
    name   TEXT    NOT NULL,
    -- The epoch of new rows.
    epoch  INTEGER NOT NULL,
    -- Of use on PostgreSQL only.
    server TEXT    NOT NULL
) STRICT;
INSERT INTO feed (id, name, epoch, server) VALUES (1, lower(hex(randomblob(16))), 1, '');

-- What was answered to writing calls that came with a key of their caller's. Kept for a day.
CREATE TABLE idempotency_keys (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id     INTEGER NOT NULL,
    key            TEXT    NOT NULL,
    -- A hash of what was asked for.
    content        BLOB    NOT NULL,
    -- 1 UpdateStatus, 2 CreateOrUpdateCustomer, 3 EraseCustomer.
    operation      INTEGER NOT NULL CHECK (operation BETWEEN 1 AND 3),
    key_time       INTEGER NOT NULL,
    customer_id    INTEGER NOT NULL,
    created        INTEGER NOT NULL,
    -- The customer as it was answered; the profile is null once the customer is erased.
    reference      TEXT    NOT NULL,
    profile        BLOB,
    status         INTEGER NOT NULL CHECK (status BETWEEN 1 AND 3),
    status_version INTEGER NOT NULL,
    revision       INTEGER NOT NULL,
    update_time    INTEGER NOT NULL,
    UNIQUE (account_id, key)
) STRICT;
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (key_time);
CREATE INDEX idempotency_keys_by_customer ON idempotency_keys (customer_id);

-- The history of an account, sealed in blocks: each holds a hash of every row in it and of the block before.
CREATE TABLE audit_blocks (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id INTEGER NOT NULL,
    -- Dense from 1 for each account.
    number     INTEGER NOT NULL,
    -- Where the next block begins: behind this row.
    epoch      INTEGER NOT NULL,
    xid        INTEGER NOT NULL,
    position   INTEGER NOT NULL,
    -- Customer, version and hash of each row.
    entries    BLOB    NOT NULL,
    hash       BLOB    NOT NULL,
    seal_time  INTEGER NOT NULL,
    UNIQUE (account_id, number)
) STRICT;

-- Where changes of status are sent to.
CREATE TABLE webhooks (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id       INTEGER NOT NULL REFERENCES accounts (id),
    public_id        TEXT    NOT NULL UNIQUE,
    url              TEXT    NOT NULL,
    -- In an encrypted store sealed. The old one counts too, until its time.
    secret           BLOB    NOT NULL,
    old_secret       BLOB,
    old_secret_until INTEGER NOT NULL,
    create_time      INTEGER NOT NULL,
    -- All up to this row is delivered, or stands in webhook_deliveries.
    epoch            INTEGER NOT NULL,
    xid              INTEGER NOT NULL,
    position         INTEGER NOT NULL,
    -- Which gateway delivers, and until when it may.
    lease_holder     TEXT    NOT NULL,
    lease_until      INTEGER NOT NULL,
    -- How often in a row delivery has failed, and until when it pauses.
    failures         INTEGER NOT NULL,
    pause_until      INTEGER NOT NULL
) STRICT;
CREATE INDEX webhooks_by_account ON webhooks (account_id);

-- What could not be delivered at once: what waits for another try, what waits behind that, and what was given up.
CREATE TABLE webhook_deliveries (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook_id  INTEGER NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    -- The row of status_changes.
    position    INTEGER NOT NULL,
    customer_id INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    -- When it was tried first; 0 when it was not yet.
    first_time  INTEGER NOT NULL,
    next_time   INTEGER NOT NULL,
    parked      INTEGER NOT NULL,
    -- What became of the last try; nothing personal.
    last_error  TEXT    NOT NULL,
    UNIQUE (webhook_id, position)
) STRICT;
-- Of each customer the first one that waits is tried, and the others stand behind it.
CREATE INDEX webhook_deliveries_by_customer ON webhook_deliveries (webhook_id, parked, customer_id, id);

-- The history is asked for by what a customer is, or was, called outside.
CREATE INDEX customers_by_public_id ON customers (public_id);
CREATE INDEX erasures_by_public_id ON erasures (public_id);
