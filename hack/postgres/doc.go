// Package postgres runs a PostgreSQL server for the tests: Debian's package, a folder of its own that is gone afterwards,
// reached through a socket in that folder, and over TCP on the loopback interface. It knows nothing of what is kept there.
package postgres
