-- What a row tells of: 1 a change of status, 2 the erasure of the customer, which leaves the status as it was.
ALTER TABLE status_changes ADD COLUMN kind SMALLINT NOT NULL DEFAULT 1 CHECK (kind BETWEEN 1 AND 2);

-- Why the status was changed, as the caller put it.
ALTER TABLE status_changes ADD COLUMN reason TEXT;

-- Positions are given before a transaction commits, so their order is not that of the commits. The order in which nothing is
-- missed is (epoch, xid, position), up to the oldest transaction that still runs. Rows that are there already come first.
ALTER TABLE status_changes ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;
ALTER TABLE status_changes ADD COLUMN xid BIGINT NOT NULL DEFAULT 0;
-- Numbers of transactions mean nothing on another server: a store that finds itself on one goes on with the next epoch.
ALTER TABLE status_changes ALTER COLUMN epoch SET DEFAULT 1;
ALTER TABLE status_changes ALTER COLUMN xid SET DEFAULT pg_current_xact_id()::text::bigint;

-- The transaction that wrote the row, by which `attempts` names it. The number above may be a later one.
ALTER TABLE status_changes ADD COLUMN attempt BIGINT;
ALTER TABLE status_changes ALTER COLUMN attempt SET DEFAULT pg_current_xact_id()::text::bigint;

-- A transaction has its number before it has the row of a customer: one with a larger number may change the customer first. The
-- row of a change then takes the number of the change before it, by which it is handed out no earlier than by its own. Being
-- volatile, the function sees what was committed before the customer's row was had.
CREATE FUNCTION status_changes_keep_order() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    NEW.xid := coalesce((SELECT p.xid FROM status_changes p
                         WHERE p.customer_id = NEW.customer_id AND p.version = NEW.version - 1
                           AND p.epoch = NEW.epoch AND p.xid > NEW.xid), NEW.xid);
    RETURN NEW;
END
$$;
CREATE TRIGGER status_changes_keep_order BEFORE INSERT ON status_changes
FOR EACH ROW EXECUTE FUNCTION status_changes_keep_order();

CREATE INDEX status_changes_in_feed_order ON status_changes (account_id, epoch, xid, position);
CREATE INDEX status_changes_by_time ON status_changes (account_id, change_time, position);

-- One row.
CREATE TABLE feed (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    -- Names the store in the cursors that it hands out.
    name   TEXT    NOT NULL,
    -- The epoch of new rows, which is also the default of status_changes.epoch.
    epoch  BIGINT  NOT NULL,
    -- The server that wrote the rows of that epoch; empty until it is known.
    server TEXT    NOT NULL
);
INSERT INTO feed (id, name, epoch, server) VALUES (1, replace(gen_random_uuid()::text, '-', ''), 1, '');

-- The transactions of the gateways' writers. Whoever lost the connection at the commit adds the row itself: if it is there
-- by then, the transaction was committed; if not, it never will be.
CREATE TABLE attempts (
    -- A UUID that sorts by time.
    id          BYTEA       PRIMARY KEY,
    -- The transaction: the `attempt` of the rows of status_changes that it wrote.
    xid         BIGINT      NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    -- Whether the row was added by who lost the transaction: then it was not committed.
    lost        BOOLEAN     NOT NULL DEFAULT false,
    create_time TIMESTAMPTZ NOT NULL DEFAULT now()
);
-- Rows are added in the order of their times, so that a few entries tell where the old ones are.
CREATE INDEX attempts_by_time ON attempts USING brin (create_time);

-- What was answered to writing calls that came with a key of their caller's. Kept for a day.
CREATE TABLE idempotency_keys (
    id             BIGINT   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id     BIGINT   NOT NULL,
    key            TEXT     COLLATE "C" NOT NULL,
    -- A hash of what was asked for.
    content        BYTEA    NOT NULL,
    -- 1 UpdateStatus, 2 CreateOrUpdateCustomer, 3 EraseCustomer.
    operation      SMALLINT NOT NULL CHECK (operation BETWEEN 1 AND 3),
    key_time       BIGINT   NOT NULL,
    customer_id    BIGINT   NOT NULL,
    created        BOOLEAN  NOT NULL,
    -- The customer as it was answered; the profile is null once the customer is erased.
    reference      TEXT     NOT NULL,
    profile        BYTEA,
    status         SMALLINT NOT NULL CHECK (status BETWEEN 1 AND 3),
    status_version BIGINT   NOT NULL,
    revision       BIGINT   NOT NULL,
    update_time    BIGINT   NOT NULL,
    UNIQUE (account_id, key)
);
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (key_time);
CREATE INDEX idempotency_keys_by_customer ON idempotency_keys (customer_id);

-- The history of an account, sealed in blocks: each holds a hash of every row in it and of the block before.
CREATE TABLE audit_blocks (
    id         BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id BIGINT  NOT NULL,
    -- Dense from 1 for each account.
    number     BIGINT  NOT NULL,
    -- Where the next block begins: behind this row.
    epoch      BIGINT  NOT NULL,
    xid        BIGINT  NOT NULL,
    position   BIGINT  NOT NULL,
    -- Customer, version and hash of each row.
    entries    BYTEA   NOT NULL,
    hash       BYTEA   NOT NULL,
    seal_time  BIGINT  NOT NULL,
    UNIQUE (account_id, number)
);

-- Where changes of status are sent to.
CREATE TABLE webhooks (
    id               BIGINT   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id       BIGINT   NOT NULL REFERENCES accounts (id),
    public_id        TEXT     COLLATE "C" NOT NULL UNIQUE,
    url              TEXT     NOT NULL,
    -- In an encrypted store sealed. The old one counts too, until its time.
    secret           BYTEA    NOT NULL,
    old_secret       BYTEA,
    old_secret_until BIGINT   NOT NULL,
    create_time      BIGINT   NOT NULL,
    -- All up to this row is delivered, or stands in webhook_deliveries.
    epoch            BIGINT   NOT NULL,
    xid              BIGINT   NOT NULL,
    position         BIGINT   NOT NULL,
    -- Which gateway delivers, and until when it may.
    lease_holder     TEXT     NOT NULL,
    lease_until      BIGINT   NOT NULL,
    -- How often in a row delivery has failed, and until when it pauses.
    failures         INTEGER  NOT NULL,
    pause_until      BIGINT   NOT NULL
);
CREATE INDEX webhooks_by_account ON webhooks (account_id);

-- What could not be delivered at once: what waits for another try, what waits behind that, and what was given up.
CREATE TABLE webhook_deliveries (
    id          BIGINT   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook_id  BIGINT   NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    -- The row of status_changes.
    position    BIGINT   NOT NULL,
    customer_id BIGINT   NOT NULL,
    attempts    INTEGER  NOT NULL,
    -- When it was tried first; 0 when it was not yet.
    first_time  BIGINT   NOT NULL,
    next_time   BIGINT   NOT NULL,
    parked      BOOLEAN  NOT NULL,
    -- What became of the last try; nothing personal.
    last_error  TEXT     NOT NULL,
    UNIQUE (webhook_id, position)
);
-- Of each customer the first one that waits is tried, and the others stand behind it.
CREATE INDEX webhook_deliveries_by_customer ON webhook_deliveries (webhook_id, parked, customer_id, id);

-- The history is asked for by what a customer is, or was, called outside.
CREATE INDEX customers_by_public_id ON customers (public_id);
CREATE INDEX erasures_by_public_id ON erasures (public_id);
