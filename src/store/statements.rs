//! What each [`Write`] is in SQL, and how all of it is read back.

use super::error::BadRow;
use crate::{
    backend::{LeaseRecord, Loaded, Write},
    intent::{AddressGroup, Change, Network, NetworkId, Port, ResourceName, SecurityGroup, Subnet, SubnetId},
};
use rusqlite::{Connection, Error, Params, Result, Row, params};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Display, str::FromStr};
use uuid::Uuid;

/// Does one write. A lease of a network that is not there is dropped: the network was deleted while the lease was on
/// its way, and its leases with it.
pub(super) fn apply(connection: &Connection, write: &Write) -> Result<()> {
    let run = |sql: &str, params: &[&dyn rusqlite::ToSql]| execute(connection, sql, params);
    match write {
        Write::Intent(change) => apply_change(connection, change),
        Write::PutLease(lease) => put_lease(connection, lease),
        Write::DeleteLease { network, address } => run(
            "DELETE FROM lease WHERE network_id = ?1 AND address = ?2",
            &[&network.to_string(), &address.to_string()],
        ),
        Write::PutPublished(network) => {
            run("INSERT INTO published (network_id) VALUES (?1) ON CONFLICT DO NOTHING", &[&network.to_string()])
        }
        Write::DeletePublished(network) => run("DELETE FROM published WHERE network_id = ?1", &[&network.to_string()]),
        Write::PutMemo { key, value } => run(
            "INSERT INTO memo (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            &[key, value],
        ),
        Write::DeleteMemo { key } => run("DELETE FROM memo WHERE key = ?1", &[key]),
    }
}

/// As [`crate::intent::Intent::apply`] does it. A `Put` is an upsert: a replaced row would take its children along.
fn apply_change(connection: &Connection, change: &Change) -> Result<()> {
    match change {
        Change::PutNetwork(network) => execute(
            connection,
            "INSERT INTO network (id, name, spec) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, spec = excluded.spec",
            params![network.id.to_string(), network.name.as_str(), json(network)?],
        ),
        Change::DeleteNetwork(id) => {
            for subnet in subnets_of(connection, *id)? {
                take_addresses(connection, subnet)?;
            }
            execute(connection, "DELETE FROM network WHERE id = ?1", [id.to_string()])
        }
        Change::PutSubnet(subnet) => execute(
            connection,
            "INSERT INTO subnet (id, network_id, name, spec) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO UPDATE
             SET network_id = excluded.network_id, name = excluded.name, spec = excluded.spec",
            params![subnet.id.to_string(), subnet.network.to_string(), subnet.name.as_str(), json(subnet)?],
        ),
        Change::DeleteSubnet(id) => {
            take_addresses(connection, *id)?;
            execute(connection, "DELETE FROM subnet WHERE id = ?1", [id.to_string()])
        }
        Change::PutPort(port) => put_port(connection, port),
        Change::PutSecurityGroup(group) => put_named(connection, "security_group", &group.id, &group.name, group),
        Change::DeleteSecurityGroup(id) => {
            execute(connection, "DELETE FROM security_group WHERE id = ?1", [id.to_string()])
        }
        Change::PutAddressGroup(group) => put_named(connection, "address_group", &group.id, &group.name, group),
        Change::DeleteAddressGroup(id) => {
            execute(connection, "DELETE FROM address_group WHERE id = ?1", [id.to_string()])
        }
        Change::DeletePort(id) => execute(connection, "DELETE FROM port WHERE id = ?1", [id.to_string()]),
    }
}

fn put_port(connection: &Connection, port: &Port) -> Result<()> {
    execute(
        connection,
        "INSERT INTO port (id, network_id, mac, spec) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE
         SET network_id = excluded.network_id, mac = excluded.mac, spec = excluded.spec",
        params![port.id.to_string(), port.network.to_string(), port.mac.to_string(), json(port)?],
    )
}

fn put_named(
    connection: &Connection,
    table: &'static str,
    id: &impl Display,
    name: &ResourceName,
    spec: &impl Serialize,
) -> Result<()> {
    let sql = format!(
        "INSERT INTO {table} (id, name, spec) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, spec = excluded.spec"
    );
    execute(connection, &sql, params![id.to_string(), name.as_str(), json(spec)?])
}

fn put_lease(connection: &Connection, lease: &LeaseRecord) -> Result<()> {
    execute(
        connection,
        "INSERT INTO lease (network_id, address, client, mac, host_name, port_id, expires, iaid, prefix_length)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 WHERE EXISTS (SELECT 1 FROM network WHERE id = ?1)
         ON CONFLICT (network_id, address) DO UPDATE
         SET client = excluded.client, mac = excluded.mac, host_name = excluded.host_name,
             port_id = excluded.port_id, expires = excluded.expires, iaid = excluded.iaid,
             prefix_length = excluded.prefix_length",
        params![
            lease.network.to_string(),
            lease.address.to_string(),
            lease.client,
            lease.mac.to_string(),
            lease.host_name,
            lease.port.map(|port| port.to_string()),
            // SQLite's integers are signed; the bits come back as they went.
            lease.expires.cast_signed(),
            lease.iaid,
            lease.prefix_length,
        ],
    )
}

/// Prolongs a lease that is stored already, in its place; false where it is not, or is another client's.
pub(super) fn renew_lease(connection: &Connection, lease: &LeaseRecord) -> Result<bool> {
    let sql = "UPDATE lease SET expires = ?1 WHERE network_id = ?2 AND address = ?3 AND client = ?4";
    let network = lease.network.to_string();
    let params = params![lease.expires.cast_signed(), network, lease.address.to_string(), lease.client];
    Ok(connection.prepare_cached(sql)?.execute(params)? > 0)
}

/// Takes the addresses in a subnet from all ports that hold one.
fn take_addresses(connection: &Connection, subnet: SubnetId) -> Result<()> {
    // The text of an identity stands in a specification only where the port refers to it.
    let sql = "SELECT id, spec FROM port WHERE instr(spec, ?1)";
    let holders: Vec<Port> = specs(connection, "port", sql, [subnet.to_string()])?;
    for mut port in holders {
        port.fixed_ips.retain(|ip| ip.subnet != subnet);
        put_port(connection, &port)?;
    }
    Ok(())
}

fn subnets_of(connection: &Connection, network: NetworkId) -> Result<Vec<SubnetId>> {
    let sql = "SELECT id, spec FROM subnet WHERE network_id = ?1";
    let subnets: Vec<Subnet> = specs(connection, "subnet", sql, [network.to_string()])?;
    Ok(subnets.into_iter().map(|subnet| subnet.id).collect())
}

/// All that is stored, in the order of the identities, addresses and keys.
pub(super) fn load(connection: &Connection) -> Result<Loaded> {
    let networks: Vec<Network> = specs(connection, "network", "SELECT id, spec FROM network ORDER BY id", [])?;
    let subnets: Vec<Subnet> = specs(connection, "subnet", "SELECT id, spec FROM subnet ORDER BY id", [])?;
    let ports: Vec<Port> = specs(connection, "port", "SELECT id, spec FROM port ORDER BY id", [])?;
    let sql = "SELECT id, spec FROM security_group ORDER BY id";
    let security_groups: Vec<SecurityGroup> = specs(connection, "security_group", sql, [])?;
    let sql = "SELECT id, spec FROM address_group ORDER BY id";
    let address_groups: Vec<AddressGroup> = specs(connection, "address_group", sql, [])?;
    let mut leases = rows(connection, &format!("SELECT {LEASE} FROM lease"), [], lease)?;
    leases.sort_by_key(|lease| (lease.network, lease.address));
    let published = rows(connection, "SELECT network_id FROM published ORDER BY network_id", [], |row| {
        let id: String = row.get(0)?;
        parse("published", &id, &id)
    })?;
    let memos = rows(connection, "SELECT key, value FROM memo ORDER BY key", [], |row| row.try_into())?;
    Ok(Loaded { networks, subnets, ports, security_groups, address_groups, leases, published, memos })
}

/// The leases of one network, in the order of their texts.
pub(super) fn leases_of(connection: &Connection, network: Uuid) -> Result<Vec<LeaseRecord>> {
    let sql = format!("SELECT {LEASE} FROM lease WHERE network_id = ?1");
    rows(connection, &sql, [network.to_string()], lease)
}

/// The columns that [`lease`] reads.
const LEASE: &str = "network_id, address, client, mac, host_name, port_id, expires, iaid, prefix_length";

fn lease(row: &Row<'_>) -> Result<LeaseRecord> {
    let (network, address, mac): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(3)?);
    let port: Option<String> = row.get(5)?;
    Ok(LeaseRecord {
        network: parse::<Uuid>("lease", &address, &network)?,
        address: parse("lease", &address, &address)?,
        client: row.get(2)?,
        mac: parse("lease", &address, &mac)?,
        host_name: row.get(4)?,
        port: port.map(|port| parse("lease", &address, &port)).transpose()?,
        expires: row.get::<_, i64>(6)?.cast_unsigned(),
        iaid: row.get(7)?,
        prefix_length: row.get(8)?,
    })
}

/// The specifications that a query of `id, spec` gives.
fn specs<T: DeserializeOwned>(
    connection: &Connection,
    table: &'static str,
    sql: &str,
    params: impl Params,
) -> Result<Vec<T>> {
    rows(connection, sql, params, |row| {
        let (id, spec): (String, String) = row.try_into()?;
        serde_json::from_str(&spec).map_err(|why| BadRow { table, row: id, why: why.to_string() }.into())
    })
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    connection.prepare_cached(sql)?.query_map(params, read)?.collect()
}

fn execute(connection: &Connection, sql: &str, params: impl Params) -> Result<()> {
    connection.prepare_cached(sql)?.execute(params).map(drop)
}

fn parse<T: FromStr<Err: Display>>(table: &'static str, row: &str, text: &str) -> Result<T> {
    text.parse().map_err(|why: T::Err| BadRow { table, row: row.to_owned(), why: why.to_string() }.into())
}

fn json(spec: &impl Serialize) -> Result<String> {
    serde_json::to_string(spec).map_err(|error| Error::ToSqlConversionFailure(Box::new(error)))
}
