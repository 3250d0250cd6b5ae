package dependency

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// shown is an address as the tables below write it.
func shown(as []address) (out []string) {
	for _, a := range as {
		s := a.host
		if a.port != 0 {
			s = fmt.Sprintf("%s:%d", a.host, a.port)
		}
		if a.scheme != "" {
			s = a.scheme + "://" + s
		}
		if a.keyed {
			s += " keyed"
		}
		if a.unsure {
			s += " unsure"
		}
		out = append(out, s)
	}
	return out
}

func TestAddresses(t *testing.T) {
	for value, want := range map[string]string{
		"":                               "",
		"db":                             "db",
		`"db"`:                           "db",
		"DB.Shop.":                       "db.shop",
		"db:5432":                        "db:5432",
		"db.shop.svc.cluster.local:5432": "db.shop.svc.cluster.local:5432",
		"db:5432/orders":                 "db:5432",
		"db:0":                           "",
		"db:65536":                       "",
		"db:+80":                         "",
		"db:":                            "",
		":8080":                          "",
		"8080":                           "",
		"1.2.3":                          "",
		"10:30":                          "",
		"10.0.0.7:80":                    "10.0.0.7:80",
		"[fd00::7]:80":                   "fd00::7:80",
		"fd00::7":                        "fd00::7",
		"[fd00::7":                       "",
		"a@example.com":                  "",
		"u:p@db:5432":                    "db:5432 unsure",
		"http://billing":                 "http://billing",
		"HTTP://billing:8080/v1?x=y":     "http://billing:8080",
		"postgres://u:p@db:5432/orders?sslmode=disable":        "postgres://db:5432",
		"postgres://u:p%40@db/orders":                          "postgres://db",
		"postgres://u:p@x@db/orders":                           "postgres://db",
		"postgres://u:1/2@db:5432/orders":                      "postgres://u:1 unsure|postgres://db:5432 unsure",
		"postgres://u:p://9@db/orders":                         "p://db", // the host of a URL that ends in a colon is none
		"jdbc:postgresql://db:5432/orders":                     "postgresql://db:5432",
		"mongodb://u:p@m-0.m:27017,m-1.m:27017/x":              "mongodb://m-0.m:27017|mongodb://m-1.m:27017",
		"http://a:1,http://b:2":                                "http://a:1|http://b:2",
		"http://a/?to=http://b/":                               "http://a|http://b",
		"redis://:secret@cache:6379/0":                         "redis://cache:6379",
		"unix:///var/run/x.sock":                               "",
		"dns:///billing:9090":                                  "dns://billing:9090",
		"dns://10.0.0.1/billing:9090":                          "dns://billing:9090",
		"dns:billing:9090":                                     "billing:9090",
		"user:pw@tcp(mysql:3306)/db?parseTime=true":            "mysql://mysql:3306",
		"$(USER):$(PW)@tcp(mysql)/db":                          "mysql://mysql",
		"user:pw@unix(/run/mysql.sock)/db":                     "",
		"host=db port=5432 user=u password='a host=evil' x=y":  "db:5432 keyed",
		"host=a,b port=1,2":                                    "a:1 keyed|b:2 keyed",
		"host=/var/run/postgresql":                             "",
		"Server=tcp:sql,1433;Database=x;Password=host=evil.io": "sql:1433 keyed",
		"Host=db;Port=5432;Username=u":                         "db:5432 keyed",
		"kafka-0.kafka:9092,kafka-1.kafka:9092":                "kafka-0.kafka:9092|kafka-1.kafka:9092",
		"cache:6379,password=x,ssl=False":                      "cache:6379",
		"[fd00::7]:80,[fd00::8]:80":                            "fd00::7:80|fd00::8:80",
		`["a:1", "b:2"]`:                                       "a:1|b:2",
		"the quick web":                                        "the|quick|web",
		"It's the web, at web:80!":                             "",
		"see (web) at web:80":                                  "web:80",
		"exec app --db postgres://u@db:5432/x --to http://b":   "postgres://db:5432|http://b",
		"$(DB_HOST):5432":                                      "",
		"http://$(DB_HOST)/":                                   "",
	} {
		if d := cmp.Diff(want, strings.Join(shown(addresses(value)), "|")); d != "" {
			t.Errorf("%q (-want +got):\n%s", value, d)
		}
	}
}

func TestNamesAddress(t *testing.T) {
	for name, want := range map[string]bool{
		"DATABASE_URL": true, "PGHOST": true, "databaseUrl": true, "redis-addr": true, "KAFKA_BROKERS": true, "DB_HOST_NAME": true, "host": true,
		"MODE": false, "SERVER_NAME": false, "DB_PORT": false, "DB_USER": false, "": false, "OTEL_SERVICE_NAME": false,
		"curl": true, // by its ending; a value that is a Service's name is likely one there too
	} {
		if got := namesAddress(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

// FuzzAddresses sees that whatever a value is, what is read from it could be looked up, and that a value without a sign
// of an address has none.
func FuzzAddresses(f *testing.F) {
	for _, s := range []string{"db:5432", "postgres://u:p@db:5432/x?y", "u:p@tcp(db:1)/x", "host=a port=1", "a:1,b:2", "[::1]:80", "://", "host='", "dns:///x", "a://b://c@d/@e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, a := range addresses(s) {
			if a.host == "" || len(a.host) > 253 || strings.ContainsAny(a.host, "@/ \n\t'\"()$=") || strings.ToLower(a.host) != a.host {
				t.Errorf("%q: host %q", s, a.host)
			}
			if strings.Contains(a.host, ":") && net.ParseIP(a.host) == nil {
				t.Errorf("%q: host %q", s, a.host)
			}
			if a.port < 0 || a.port > 65535 {
				t.Errorf("%q: port %d", s, a.port)
			}
			if !strings.Contains(strings.ToLower(s), a.host) {
				t.Errorf("%q: host %q is not in it", s, a.host)
			}
		}
		namesAddress(s)
	})
}
