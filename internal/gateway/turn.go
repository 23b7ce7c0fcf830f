package gateway

import (
	"hash/fnv"
	"time"
)

// turnsWithin is the time over which replicas with one log are spread, so that whoever comes later finds what is there.
const turnsWithin = 4 * time.Second

// turnOf returns how long a replica leaves something to the others: each another time for each thing.
func turnOf(replica, what string) time.Duration {
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(replica + "/" + what))
	return time.Duration(sum.Sum32()) % turnsWithin
}
