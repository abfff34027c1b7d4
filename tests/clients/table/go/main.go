// Google's Go client drives `lockstep table serve`, at BIGTABLE_EMULATOR_HOST: `check` proves what it answers, `bench`
// measures it (or Google's emulator).
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/bigtable"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

var (
	ctx    = context.Background()
	checks int
)

func must(err error, what string) {
	if err != nil {
		fmt.Printf("%s: %v\n", what, err)
		os.Exit(1)
	}
}
func same(got, expected any, what string) {
	checks++
	if fmt.Sprint(got) != fmt.Sprint(expected) {
		fmt.Printf("%s: got %.2000v, expected %.2000v\n", what, fmt.Sprint(got), fmt.Sprint(expected))
		os.Exit(1)
	}
}
func open() (*bigtable.AdminClient, *bigtable.Client) {
	a, err := bigtable.NewAdminClient(ctx, "p", "i")
	must(err, "admin client")
	// The client takes messages of 4 MiB from an emulator, unless it is given a connection; a row is one message.
	conn, err := grpc.NewClient(os.Getenv("BIGTABLE_EMULATOR_HOST"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<28), grpc.MaxCallSendMsgSize(1<<28)))
	must(err, "connection")
	c, err := bigtable.NewClientWithConfig(ctx, "p", "i", bigtable.ClientConfig{MetricsProvider: bigtable.NoopMetricsProvider{}},
		option.WithGRPCConn(conn))
	must(err, "client")
	return a, c
}

func check() {
	a, c := open()
	name := fmt.Sprintf("go-%d", time.Now().UnixNano())
	must(a.CreateTableFromConf(ctx, &bigtable.TableConf{TableID: name, Families: map[string]bigtable.GCPolicy{
		"f": bigtable.MaxVersionsPolicy(2), "g": bigtable.UnionPolicy(bigtable.MaxAgePolicy(time.Hour*1e5), bigtable.MaxVersionsPolicy(9))}}), "create")
	info, err := a.TableInfo(ctx, name)
	must(err, "info")
	same(len(info.FamilyInfos), 2, "families")
	for _, f := range info.FamilyInfos {
		same(f.GCPolicy != "", true, "rule of "+f.Name)
	}
	t := c.Open(name)

	// A cell in many chunks; cells beside it.
	for _, size := range []int{0, 1, 262143, 262144, 262145, 5 << 20, 30 << 20} {
		big := make([]byte, size)
		rand.Read(big)
		m := bigtable.NewMutation()
		m.Set("f", "big", 1000, big)
		m.Set("f", "small", 1000, []byte("s"))
		must(t.Apply(ctx, "big"+strconv.Itoa(size), m), "write a big cell")
		r, err := t.ReadRow(ctx, "big"+strconv.Itoa(size))
		must(err, "read a big cell of "+strconv.Itoa(size))
		same(len(r["f"]), 2, "cells beside a big one")
		same(bytes.Equal(r["f"][0].Value, big), true, "a big cell")
	}

	// Many rows at once, and back in order, forwards and backwards.
	var keys []string
	var muts []*bigtable.Mutation
	for i := 0; i < 5000; i++ {
		m := bigtable.NewMutation()
		m.Set("f", "q", bigtable.Timestamp(1000*i), []byte(strconv.Itoa(i)))
		keys, muts = append(keys, fmt.Sprintf("r%06d", i)), append(muts, m)
	}
	errs, err := t.ApplyBulk(ctx, keys, muts)
	must(err, "bulk")
	same(len(errs), 0, "bulk errors")
	var got []string
	must(t.ReadRows(ctx, bigtable.PrefixRange("r"), func(r bigtable.Row) bool { got = append(got, r.Key()); return true }), "scan")
	same(got, keys, "scan")
	got = nil
	must(t.ReadRows(ctx, bigtable.PrefixRange("r"), func(r bigtable.Row) bool { got = append(got, r.Key()); return true },
		bigtable.ReverseScan(), bigtable.LimitRows(3)), "reversed")
	same(got, []string{"r004999", "r004998", "r004997"}, "reversed")
	n := 0
	must(t.ReadRows(ctx, bigtable.InfiniteRange(""), func(bigtable.Row) bool { n++; return true },
		bigtable.RowFilter(bigtable.ValueFilter("nothing is so"))), "a scan that hides all")
	same(n, 0, "a scan that hides all")
	var full *bigtable.FullReadStats
	must(t.ReadRows(ctx, bigtable.NewRange("r000010", "r000020"), func(bigtable.Row) bool { return true },
		bigtable.WithFullReadStats(func(s *bigtable.FullReadStats) { full = s })), "statistics")
	same(full != nil && full.ReadIterationStats.RowsReturnedCount == 10 && full.ReadIterationStats.CellsReturnedCount == 10, true, "statistics")
	samples, err := t.SampleRowKeys(ctx)
	must(err, "samples")
	same(len(samples) > 0 && sort.StringsAreSorted(samples), true, "samples")

	// Conditions, increments by 16 clients at once.
	m := bigtable.NewMutation()
	m.Set("f", "seen", 1000, []byte("1"))
	matched := true
	must(t.Apply(ctx, "cond", bigtable.NewCondMutation(bigtable.ColumnFilter("seen"), nil, m), bigtable.GetCondMutationResult(&matched)), "condition")
	same(matched, false, "condition")
	must(t.Apply(ctx, "cond", bigtable.NewCondMutation(bigtable.ColumnFilter("seen"), m, nil), bigtable.GetCondMutationResult(&matched)), "condition")
	same(matched, true, "condition")
	var all sync.WaitGroup
	for w := 0; w < 16; w++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := 0; i < 50; i++ {
				r := bigtable.NewReadModifyWrite()
				r.Increment("f", "n", 1)
				_, err := t.ApplyReadModifyWrite(ctx, "count", r)
				must(err, "increment")
			}
		}()
	}
	all.Wait()
	r, err := t.ReadRow(ctx, "count", bigtable.RowFilter(bigtable.LatestNFilter(1)))
	must(err, "count")
	same(binary.BigEndian.Uint64(r["f"][0].Value), 800, "increments of 16 clients")

	// Errors by their codes.
	m = bigtable.NewMutation()
	m.Set("nix", "q", 1000, nil)
	same(status.Code(t.Apply(ctx, "r", m)), codes.NotFound, "an unknown family")
	_, err = c.Open("nix").ReadRow(ctx, "r")
	same(status.Code(err), codes.NotFound, "an unknown table")
	same(status.Code(a.CreateTable(ctx, name)), codes.AlreadyExists, "a table twice")
	must(a.DropRowRange(ctx, name, "r00000"), "drop rows")
	r, err = t.ReadRow(ctx, "r000005")
	must(err, "a dropped row")
	same(len(r), 0, "a dropped row")
	must(a.WaitForReplication(ctx, name), "consistency")
	must(a.DropAllRows(ctx, name), "drop all")
	must(a.DeleteTable(ctx, name), "delete")
	fmt.Printf("go: %d checks\n", checks)
}

// --- bench ---

func percentile(all []time.Duration, p float64) time.Duration {
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	return all[int(float64(len(all)-1)*p)]
}

// work runs f on 16 streams for some seconds.
func work(what string, seconds float64, f func(rng *rand.Rand) error) {
	const streams = 16
	var count atomic.Int64
	var all sync.WaitGroup
	times := make([][]time.Duration, streams)
	start := time.Now()
	for w := 0; w < streams; w++ {
		all.Add(1)
		go func(w int) {
			defer all.Done()
			rng := rand.New(rand.NewSource(int64(w)))
			for time.Since(start).Seconds() < seconds {
				t := time.Now()
				must(f(rng), what)
				times[w] = append(times[w], time.Since(t))
				count.Add(1)
			}
		}(w)
	}
	all.Wait()
	var joined []time.Duration
	for _, t := range times {
		joined = append(joined, t...)
	}
	fmt.Printf("%-14s %9.0f /s   p50 %7.0f us   p99 %7.0f us\n", what, float64(count.Load())/time.Since(start).Seconds(),
		float64(percentile(joined, 0.5).Nanoseconds())/1e3, float64(percentile(joined, 0.99).Nanoseconds())/1e3)
}

func bench(rows int, seconds float64) {
	a, c := open()
	const name = "bench"
	a.DeleteTable(ctx, name)
	must(a.CreateTableFromConf(ctx, &bigtable.TableConf{TableID: name, Families: map[string]bigtable.GCPolicy{"f": bigtable.MaxVersionsPolicy(1)}}), "create")
	t := c.Open(name)
	value := bytes.Repeat([]byte("v"), 100)
	start := time.Now()
	for i := 0; i < rows; {
		var keys []string
		var muts []*bigtable.Mutation
		for ; i < rows && len(keys) < 10000; i++ {
			m := bigtable.NewMutation()
			m.Set("f", "q", 1000, value)
			keys, muts = append(keys, fmt.Sprintf("row%09d", i)), append(muts, m)
		}
		errs, err := t.ApplyBulk(ctx, keys, muts)
		must(err, "fill")
		if len(errs) > 0 {
			must(errs[0], "fill")
		}
	}
	fmt.Printf("%-14s %9.0f rows/s\n", "fill", float64(rows)/time.Since(start).Seconds())
	work("point reads", seconds, func(rng *rand.Rand) error {
		_, err := t.ReadRow(ctx, fmt.Sprintf("row%09d", rng.Intn(rows)))
		return err
	})
	work("point writes", seconds, func(rng *rand.Rand) error {
		m := bigtable.NewMutation()
		m.Set("f", "q", 1000, value)
		return t.Apply(ctx, fmt.Sprintf("row%09d", rng.Intn(rows)), m)
	})
	scan(t)
	scan(t)
}

func scan(t *bigtable.Table) {
	n := 0
	start := time.Now()
	must(t.ReadRows(ctx, bigtable.InfiniteRange(""), func(bigtable.Row) bool { n++; return true }), "scan")
	fmt.Printf("%-14s %9.0f rows/s   %d rows in %.2f s\n", "scan", float64(n)/time.Since(start).Seconds(), n, time.Since(start).Seconds())
}

// --- a server that is killed ---

// load writes on 16 streams until a write fails, then prints the rows that were told to be written.
func load() {
	a, c := open()
	a.CreateTableFromConf(ctx, &bigtable.TableConf{TableID: "kill", Families: map[string]bigtable.GCPolicy{"f": bigtable.NoGcPolicy()}})
	t := c.Open("kill")
	var all sync.WaitGroup
	var lock sync.Mutex
	var told []string
	for w := 0; w < 16; w++ {
		all.Add(1)
		go func(w int) {
			defer all.Done()
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d-%d-%d", time.Now().UnixNano(), w, i)
				m := bigtable.NewMutation()
				m.Set("f", "a", 1000, []byte(key))
				m.Set("f", "b", 1000, []byte(key))
				once, end := context.WithTimeout(ctx, 2*time.Second)
				err := t.Apply(once, key, m)
				end()
				if err != nil {
					return
				}
				lock.Lock()
				told = append(told, key)
				lock.Unlock()
			}
		}(w)
	}
	all.Wait()
	for _, key := range told {
		fmt.Println(key)
	}
}

// verify reads the rows that load has printed, and looks that no row is there by half.
func verify(path string) {
	_, c := open()
	text, err := os.ReadFile(path)
	must(err, path)
	there := map[string]bool{}
	must(c.Open("kill").ReadRows(ctx, bigtable.InfiniteRange(""), func(r bigtable.Row) bool {
		there[r.Key()] = true
		same(len(r["f"]), 2, "a row is there by half: "+r.Key())
		return true
	}), "scan")
	n := 0
	for _, key := range bytes.Fields(text) {
		same(there[string(key)], true, "a row that was told to be written: "+string(key))
		n++
	}
	fmt.Printf("kill: %d rows that were told to be written are there, of %d\n", n, len(there))
}

func main() {
	if len(os.Args) > 3 && os.Args[1] == "differential" {
		count, _ := strconv.Atoi(os.Args[3])
		differential(os.Args[2], count)
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "scan" {
		_, c := open()
		scan(c.Open("bench"))
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "load" {
		load()
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "verify" {
		verify(os.Args[2])
		return
	}
	if len(os.Args) > 3 && os.Args[1] == "bench" {
		rows, _ := strconv.Atoi(os.Args[2])
		seconds, _ := strconv.ParseFloat(os.Args[3], 64)
		bench(rows, seconds)
		return
	}
	check()
}
