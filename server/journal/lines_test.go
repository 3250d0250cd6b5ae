package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"log"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"fairlead.dev/api"
)

type attrs = [][2]string

func parsed(text string) api.Line {
	var l api.Line
	parseLine(text, &l)
	return l
}

func TestLines(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       api.Line
	}{
		// As the libraries write them.
		{"zap production", `{"level":"info","ts":1741608000.123,"caller":"shop/main.go:21","msg":"order placed","id":7,"took":0.25}`,
			api.Line{Level: "info", Message: "order placed", Attrs: attrs{{"caller", "shop/main.go:21"}, {"id", "7"}, {"took", "0.25"}}}},
		{"zap production error", `{"level":"dpanic","ts":1741608000.1,"caller":"a.go:1","msg":"bad","error":"EOF","stacktrace":"main.main\n\t/src/a.go:1\nruntime.main"}`,
			api.Line{Level: "fatal", Message: "bad", Attrs: attrs{{"caller", "a.go:1"}, {"error", "EOF"}, {"stacktrace", "main.main\n\t/src/a.go:1\nruntime.main"}}}},
		{"zap development", "2026-03-10T12:00:00.123Z\tDEBUG\tshop/main.go:21\torder placed\t{\"id\": 7, \"who\": \"ann\"}",
			api.Line{Level: "debug", Message: "order placed", Attrs: attrs{{"source", "shop/main.go:21"}, {"id", "7"}, {"who", "ann"}}}},
		{"zap development, coloured and named", "2026-03-10T12:00:00.123+0100\t\x1b[34mINFO\x1b[0m\tcart.db\tshop/main.go:21\topened",
			api.Line{Level: "info", Message: "opened", Attrs: attrs{{"logger", "cart.db"}, {"source", "shop/main.go:21"}}}},
		{"zap development, no caller", "2026-03-10T12:00:00.123Z\tWARN\tslow query", api.Line{Level: "warn", Message: "slow query"}},
		{"zap development, message with tab", "1.741608e+09\tERROR\ta.go:1\tone\ttwo\t{\"k\": {\"a\": [1, \"}\"]}}",
			api.Line{Level: "error", Message: "one\ttwo", Attrs: attrs{{"source", "a.go:1"}, {"k", `{"a": [1, "}"]}`}}}},
		{"logrus JSON", `{"animal":"walrus","level":"warning","msg":"A group of \"walrus\" emerges","size":10,"time":"2026-03-10T12:00:00Z"}`,
			api.Line{Level: "warn", Message: `A group of "walrus" emerges`, Attrs: attrs{{"animal", "walrus"}, {"size", "10"}}}},
		{"logrus text", `time="2026-03-10T12:00:00Z" level=info msg="A walrus appears" animal=walrus note="two words" n=-1`,
			api.Line{Level: "info", Message: "A walrus appears", Attrs: attrs{{"animal", "walrus"}, {"note", "two words"}, {"n", "-1"}}}},
		{"logrus terminal", "\x1b[36mINFO\x1b[0m[0000] A walrus appears                              \x1b[36manimal\x1b[0m=walrus \x1b[36mnote\x1b[0m=\"two words\"",
			api.Line{Level: "info", Message: "A walrus appears", Attrs: attrs{{"animal", "walrus"}, {"note", "two words"}}}},
		{"logrus terminal, full time", "ERRO[2026-03-10T12:00:00Z] it broke: a=b was wrong                     err=EOF",
			api.Line{Level: "error", Message: "it broke: a=b was wrong", Attrs: attrs{{"err", "EOF"}}}},
		{"zerolog JSON", `{"level":"info","foo":"bar","nested":{"a":[1,"]"]},"time":1741608000,"message":"hello world"}`,
			api.Line{Level: "info", Message: "hello world", Attrs: attrs{{"foo", "bar"}, {"nested", `{"a":[1,"]"]}`}}}},
		{"zerolog console", "\x1b[90m3:04PM\x1b[0m \x1b[32mINF\x1b[0m \x1b[1mshop/main.go:21\x1b[0m\x1b[36m >\x1b[0m hello world \x1b[36mfoo=\x1b[0mbar \x1b[36mn=\x1b[0m3",
			api.Line{Level: "info", Message: "hello world", Attrs: attrs{{"source", "shop/main.go:21"}, {"foo", "bar"}, {"n", "3"}}}},
		{"zerolog console, RFC 3339, plain", "2026-03-10T12:00:00Z ERR failed error=\"no such file\" n=1",
			api.Line{Level: "error", Message: "failed", Attrs: attrs{{"error", "no such file"}, {"n", "1"}}}},
		{"zerolog console, no time, empty message", "<nil> TRC k=v", api.Line{Level: "trace", Attrs: attrs{{"k", "v"}}}},
		{"klog", "E0310 12:00:00.123456    4242 reflector.go:138] Failed to watch *v1.Pod", api.Line{Level: "error", Message: "Failed to watch *v1.Pod", Attrs: attrs{{"source", "reflector.go:138"}}}},
		{"klog structured", `I0310 12:00:00.123456       1 main.go:8] "Pod status updated" pod="kube-system/dns" status="ready now"`,
			api.Line{Level: "info", Message: "Pod status updated", Attrs: attrs{{"source", "main.go:8"}, {"pod", "kube-system/dns"}, {"status", "ready now"}}}},
		{"Cloud Logging", `{"severity":"NOTICE","message":"m","timestamp":"2026-03-10T12:00:00Z","logging.googleapis.com/trace":"t"}`,
			api.Line{Level: "info", Message: "m", Attrs: attrs{{"logging.googleapis.com/trace", "t"}}}},

		// Plain text.
		{"plain", "listening on :8080", api.Line{}},
		{"empty", "", api.Line{}},
		{"spaces", "   \t ", api.Line{}},
		{"brackets", "[WARN] disk is nearly full", api.Line{Level: "warn", Message: "disk is nearly full"}},
		{"brackets of another kind", "[GIN] 200 | GET /", api.Line{}},
		{"colon", "ERROR: no such table", api.Line{Level: "error", Message: "no such table"}},
		{"a sentence", "Error: handled", api.Line{}},
		{"panic", "panic: runtime error: index out of range [3] with length 3", api.Line{Level: "fatal"}},
		{"fatal error", "fatal error: all goroutines are asleep - deadlock!", api.Line{Level: "fatal"}},
		{"coloured", "\x1b[1;31mbad\x1b[0m things", api.Line{Message: "bad things"}},
		{"a link", "see \x1b]8;;http://x\x1b\\here\x1b]8;;\x07!", api.Line{Message: "see here!"}},
		{"only key=value", "a=1 b=2", api.Line{}},
		{"prose that begins as a pair", "a=1 is what level=info means, isn't it", api.Line{}},
		{"a stack frame", "\t/src/shop/main.go:21 +0x1d", api.Line{}},

		// JSON that is none of a logger's, or none at all.
		{"an object", `{"a":1,"b":{"c":null},"d":[true]}`, api.Line{Attrs: attrs{{"a", "1"}, {"b", `{"c":null}`}, {"d", "[true]"}}}},
		{"empty object", `{}`, api.Line{}},
		{"cut off", `{"level":"info","msg":"hal`, api.Line{}},
		{"something behind", `{"level":"info","msg":"m"} tail`, api.Line{}},
		{"twice", `{"level":"info","level":"error","msg":"a","msg":"b"}`, api.Line{Level: "info", Message: "a", Attrs: attrs{{"level", "error"}, {"msg", "b"}}}},
		{"a level of its own", `{"level":"verbose","msg":"m"}`, api.Line{Message: "m", Attrs: attrs{{"level", "verbose"}}}},
		{"escapes", `{"msg":"q\"b\\s\/\b\f\n\r\té\ud83d\ude00\ud83dx","k\n":"v"}`, api.Line{Message: "q\"b\\s/\b\f\n\r\té😀\ufffdx", Attrs: attrs{{"k\n", "v"}}}},
		{"a bad escape", `{"msg":"\x"}`, api.Line{}},
		{"with spaces", ` { "level" : "info" , "msg" : "m" , "a" : [ 1 , 2 ] } `, api.Line{Level: "info", Message: "m", Attrs: attrs{{"a", "[ 1 , 2 ]"}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, parsed(c.text), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("%q: %s", c.text, d)
			}
		})
	}
}

// The standard library writes what it writes.
func TestStandardLoggers(t *testing.T) {
	var b bytes.Buffer
	take := func() string { defer b.Reset(); return strings.TrimSuffix(b.String(), "\n") }
	opts := &slog.HandlerOptions{Level: slog.LevelDebug - 4}
	use := func(l *slog.Logger) {
		l.With("svc", "shop").WithGroup("req").Log(context.Background(), slog.LevelWarn+1, "slow \"query\"", "took", 1500*time.Millisecond, "rows", 3, "sql", "select 1", "err", context.Canceled, "two words", true, "nothing", "")
	}
	want := api.Line{Level: "warn", Message: `slow "query"`}
	grouped := append(attrs{}, [2]string{"svc", "shop"}, [2]string{"req.took", "1.5s"}, [2]string{"req.rows", "3"}, [2]string{"req.sql", "select 1"}, [2]string{"req.err", "context canceled"}, [2]string{"req.two words", "true"}, [2]string{"req.nothing", ""})

	use(slog.New(slog.NewTextHandler(&b, opts)))
	want.Attrs = grouped
	if d := cmp.Diff(want, parsed(take())); d != "" {
		t.Error("text:", d)
	}
	use(slog.New(slog.NewJSONHandler(&b, opts)))
	want.Attrs = attrs{{"svc", "shop"}, {"req", `{"took":1500000000,"rows":3,"sql":"select 1","err":"context canceled","two words":true,"nothing":""}`}}
	if d := cmp.Diff(want, parsed(take())); d != "" {
		t.Error("JSON:", d)
	}
	for level, want := range map[slog.Level]string{slog.LevelDebug: "debug", slog.LevelInfo: "info", slog.LevelInfo + 2: "info", slog.LevelError: "error", slog.LevelError + 8: "error", slog.LevelDebug - 4: "debug"} {
		slog.New(slog.NewJSONHandler(&b, opts)).Log(context.Background(), level, "m")
		if got := parsed(take()).Level; got != want {
			t.Errorf("%v: %s", level, got)
		}
	}

	// slog's default handler writes through package log.
	old, oldFlags, oldOut := slog.Default(), log.Flags(), log.Writer()
	defer func() { log.SetFlags(oldFlags); log.SetOutput(oldOut); slog.SetDefault(old) }()
	log.SetFlags(log.LstdFlags)
	log.SetOutput(&b)
	slog.Warn("slow query", "took", "1.5s", "sql", "select 1")
	if d := cmp.Diff(api.Line{Level: "warn", Message: "slow query", Attrs: attrs{{"took", "1.5s"}, {"sql", "select 1"}}}, parsed(take())); d != "" {
		t.Error("default:", d)
	}

	std := log.New(&b, "", log.LstdFlags)
	std.Print("listening on :8080")
	if d := cmp.Diff(api.Line{Message: "listening on :8080"}, parsed(take()), cmpopts.EquateEmpty()); d != "" {
		t.Error("log:", d)
	}
	log.New(&b, "", log.LstdFlags|log.Lmicroseconds|log.Lshortfile).Print("[ERROR] no such table")
	got := parsed(take())
	if got.Level != "error" || got.Message != "no such table" || len(got.Attrs) != 1 || !strings.HasPrefix(got.Attrs[0][1], "lines_test.go:") {
		t.Errorf("log with microseconds and place: %+v", got)
	}
}

// Understanding costs what was escaped, at most.
func TestLineAllocations(t *testing.T) {
	var l api.Line
	for text, most := range map[string]float64{
		`{"time":"2026-03-10T12:00:00Z","level":"INFO","msg":"request served","method":"GET","status":200}`: 0,
		`time=2026-03-10T12:00:00Z level=INFO msg="request served" method=GET status=200`:                   0,
		`2026/03/10 12:00:00 INFO request served method=GET status=200`:                                     0,
		`listening on :8080`:                         0,
		`{"level":"INFO","msg":"a \"quoted\" word"}`: 2,
	} {
		parseLine(text, &l) // makes room for the attributes
		if n := testing.AllocsPerRun(100, func() { parseLine(text, &l) }); n > most {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
	// Nor can a line make it keep more than a bounded number of attributes.
	parseLine("{"+strings.Repeat(`"":0,`, 10_000)+`"":0}`, &l)
	if len(l.Attrs) != maxAttrs {
		t.Errorf("%d attributes", len(l.Attrs))
	}
}

// Whatever was written: the message stays one line of valid JSON that says the same, and is what encoding/json would make
// of it.
func FuzzLines(f *testing.F) {
	for _, s := range []string{"", "{}", `{"level":"info","msg":"\ud83d\ude00"}`, `a="b c" level=info`, "\x1b[31m\xff\x00\u2028</script>", "INFO[0000] m a=b", "E0310 12:00:00.123456 1 a.go:1] \"m\" a=\"b\"",
		"1\tINFO\ta.go:1\tm\t{\"a\":1}", "3:04PM INF a.go:1 > m a=b", "2026/03/10 12:00:00 a.go:1: INFO m a=b", `a="\" b="\" `, "[INFO] m", "\x1b]8;;x\x1b\\y", "a may not call GET /\xff of b yet"} {
		f.Add(s, "stdout", uint64(0), "pod/db")
	}
	f.Fuzz(func(t *testing.T, text, stream string, dropped uint64, process string) {
		e := &api.LogEvent{Header: api.Header{Type: api.KindLog, Generation: 3, Time: time.Unix(5, 7), Seq: 9}, Text: text, Stream: stream, Dropped: dropped, Partial: dropped%2 == 1, Process: process}
		it := taken{item: item{seq: 11, event: e}, dropped: dropped}
		var enc encoder
		enc.add(&it, "id")
		if !utf8.Valid(enc.buf) || !json.Valid(enc.buf) || bytes.Count(enc.buf, []byte("\n")) != 1 {
			t.Fatalf("%q", enc.buf)
		}
		entry := it.entry()
		entry.Journal, entry.Line = "id", new(api.Line)
		parse(e, entry.Line)
		if len(entry.Line.Attrs) > maxAttrs {
			t.Fatal("too many attributes")
		}
		want, err := json.Marshal(&entry)
		if err != nil {
			t.Fatal(err)
		}
		var a, b any
		if json.Unmarshal(want, &a) != nil || json.Unmarshal(enc.buf, &b) != nil {
			t.Fatal("no JSON")
		}
		if d := cmp.Diff(a, b); d != "" {
			t.Fatal(d)
		}
		var back api.Entry
		if err := json.Unmarshal(enc.buf, &back); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkLine(b *testing.B) {
	text := `{"time":"2026-03-10T12:00:00.123456789Z","level":"INFO","msg":"request served","method":"GET","path":"/api/v1/orders/12345","status":200,"run":"x","n":123456,"at":1741608000123456789}`
	e := &api.LogEvent{Header: api.Header{Type: api.KindLog, Generation: 3, Time: time.Now().UTC(), Seq: 9}, Text: text, Stream: "stdout"}
	b.Run("parse", func(b *testing.B) {
		var l api.Line
		b.ReportAllocs()
		for b.Loop() {
			parseLine(text, &l)
		}
	})
	b.Run("encode", func(b *testing.B) {
		var enc encoder
		b.ReportAllocs()
		for b.Loop() {
			enc.buf = enc.buf[:0]
			enc.add(&taken{item: item{seq: 11, event: e}}, "")
		}
	})
}
