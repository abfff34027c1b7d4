package main

import (
	"fmt"
	"math/rand"
	"os"
	"strings"
	"time"

	"cloud.google.com/go/bigtable"
)

// differential asks our server and Google's emulator, at the second address, the same random questions. Left out is what the
// emulator answers as its maps and sorts happen to lie: limits and offsets of a row's cells over several families, and which of
// cells that differ in their values only come first, where an interleave has let both through.
func differential(other string, count int) {
	seed := time.Now().UnixNano()
	if s := os.Getenv("LOCKSTEP_TEST_SEED"); s != "" {
		fmt.Sscan(s, &seed)
	}
	rng := rand.New(rand.NewSource(seed))
	name := fmt.Sprintf("diff-%d", time.Now().UnixNano())
	mine := os.Getenv("BIGTABLE_EMULATOR_HOST")
	var tables [2]*bigtable.Table
	for i, host := range []string{mine, other} {
		os.Setenv("BIGTABLE_EMULATOR_HOST", host)
		a, c := open()
		must(a.CreateTableFromConf(ctx, &bigtable.TableConf{TableID: name, Families: map[string]bigtable.GCPolicy{
			"a": bigtable.NoGcPolicy(), "bb": bigtable.NoGcPolicy()}}), "create")
		tables[i] = c.Open(name)
	}
	pick := func(of ...string) string { return of[rng.Intn(len(of))] }
	for i := 0; i < 400; i++ {
		m := bigtable.NewMutation()
		row := "r" + pick("0", "1", "2", "3", "4", "5", "6", "7") + pick("", "x", "\x00", "\xff")
		switch n := rng.Intn(12); {
		case n == 0:
			m.DeleteCellsInColumn(pick("a", "bb"), pick("p", "q", "qq"))
		case n == 1:
			m.DeleteTimestampRange(pick("a", "bb"), pick("p", "q", "qq"), bigtable.Timestamp(1000*rng.Intn(3)), bigtable.Timestamp(1000*(3+rng.Intn(3))))
		case n == 2:
			m.DeleteCellsInFamily(pick("a", "bb"))
		default:
			for k := 0; k < 4; k++ {
				m.Set(pick("a", "bb"), pick("p", "q", "qq", "\x80\x81", ""), bigtable.Timestamp(1000*rng.Intn(6)), []byte(pick("", "x", "xy", "yy", "a\nb", "\xc3\xa4")))
			}
		}
		for t := range tables {
			must(tables[t].Apply(ctx, row, m), "write")
		}
	}
	var filter func(depth int) bigtable.Filter
	filter = func(depth int) bigtable.Filter {
		n := rng.Intn(15)
		if depth > 3 {
			n = rng.Intn(12)
		}
		switch n {
		case 0:
			return bigtable.FamilyFilter(pick("a", "b+", ".*", "a|bb", "c"))
		case 1:
			return bigtable.ColumnFilter(pick("q", "q+", ".*", "\\C\\C", "[pq]", "", "\\x80."))
		case 2:
			return bigtable.ValueFilter(pick("x", "x?y*", ".*", "(?s).*", "\\C*", "|xy", "[^x]+"))
		case 3:
			return bigtable.ColumnRangeFilter(pick("a", "bb"), pick("", "p", "q"), pick("", "q", "r"))
		case 4:
			return bigtable.ValueRangeFilter([]byte(pick("", "x", "xy")), []byte(pick("xy", "yy", "z")))
		case 5:
			return bigtable.TimestampRangeFilterMicros(bigtable.Timestamp(1000*rng.Intn(4)), bigtable.Timestamp(1000*rng.Intn(7)))
		case 6, 7:
			return bigtable.LatestNFilter(1 + rng.Intn(3))
		case 8:
			if depth == 0 {
				return bigtable.StripValueFilter()
			}
			return bigtable.LatestNFilter(2)
		case 9:
			return bigtable.PassAllFilter()
		case 10:
			return bigtable.RowKeyFilter(pick("r[0-3].*", "r\\d", "r.\\C", ".*x"))
		case 11:
			return bigtable.BlockAllFilter()
		case 12:
			return bigtable.ChainFilters(filter(depth+1), filter(depth+1))
		case 13:
			return bigtable.InterleaveFilters(filter(depth+1), filter(depth+1), filter(depth+1))
		}
		return bigtable.ConditionFilter(filter(depth+1), filter(depth+1), filter(depth+1))
	}
	ranges := []bigtable.RowSet{bigtable.InfiniteRange(""), bigtable.PrefixRange("r3"), bigtable.NewRange("r1", "r5"), bigtable.RowList{"r1", "r7x", "r2\x00"},
		bigtable.RowRangeList{bigtable.NewRange("r1", "r3"), bigtable.NewOpenClosedRange("r2", "r6")}}
	shown := 0
	for i := 0; i < count; i++ {
		f, rows := filter(0), ranges[rng.Intn(len(ranges))]
		options := []bigtable.ReadOption{bigtable.RowFilter(f)}
		if rng.Intn(3) == 0 {
			options = append(options, bigtable.LimitRows(1+rng.Int63n(4)))
		}
		if rng.Intn(3) == 0 {
			options = append(options, bigtable.ReverseScan())
		}
		var texts [2]string
		for t := range tables {
			var b strings.Builder
			err := tables[t].ReadRows(ctx, rows, func(r bigtable.Row) bool {
				for _, fam := range []string{"a", "bb"} {
					for _, item := range r[fam] {
						fmt.Fprintf(&b, "%q %q %d %q %v\n", item.Row, item.Column, item.Timestamp, item.Value, item.Labels)
					}
				}
				return true
			}, options...)
			if err != nil {
				fmt.Fprintf(&b, "error")
			}
			texts[t] = b.String()
		}
		shown += strings.Count(texts[0], "\n")
		same(texts[0], texts[1], fmt.Sprintf("LOCKSTEP_TEST_SEED=%d, question %d: %v of %v", seed, i, f, rows))
	}
	fmt.Printf("differential: %d questions, %d cells, the same from Google's emulator\n", count, shown)
}
