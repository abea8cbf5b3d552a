-- Everything Attaché keeps. Values are sealed before they come here.
CREATE TABLE attache.records (
    kind smallint NOT NULL,
    key bytea NOT NULL,
    version bigint NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (kind, key)
);

-- Who may refresh which connection for the moment, by this server's clock.
CREATE TABLE attache.leases (
    key bytea PRIMARY KEY,
    holder bytea NOT NULL,
    until timestamptz NOT NULL
);

-- Moves with every change that is told, so that a replica which missed a notification finds out.
CREATE SEQUENCE attache.changes;
