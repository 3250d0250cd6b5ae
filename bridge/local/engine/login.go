package engine

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Use is what a service's variables and arguments say of one dependency.
type Use struct {
	Kind   string  // the engine whose DSN names it; empty where none does
	Logins []Login // what the DSNs log in with, each once, in the order of the texts
	Where  string  // the variable or argument that told the kind
}

// schemes are those of DSNs, as drivers register them, without TLS: what is run here has none.
var schemes = map[string]string{"postgres": PostgreSQL, "postgresql": PostgreSQL, "pgx": PostgreSQL, "pgx5": PostgreSQL,
	"mysql": MySQL, "mariadb": MySQL, "redis": Redis, "valkey": Redis}

// marker stands for the dependency while a text is parsed: a host that no DSN means otherwise (RFC 2606).
const marker = "dependency.invalid"

// Find looks for DSNs that name a dependency by {{NAME}}, or by {{NAME.host}} and {{NAME.port}}, in variables (KEY=VALUE) and
// arguments. It knows URLs, PostgreSQL's "host=... user=..." and the Go driver's user:password@tcp(host)/database.
func Find(name string, env, args []string) Use {
	named := regexp.MustCompile(`\{\{ *` + regexp.QuoteMeta(name) + `(\.host)? *\}\}`)
	port := regexp.MustCompile(`\{\{ *` + regexp.QuoteMeta(name) + `\.port *\}\}`)
	var u Use
	look := func(where, text string) {
		text = port.ReplaceAllString(named.ReplaceAllString(text, marker), "1")
		kind, l, ok := parse(text)
		if !ok {
			return
		}
		if u.Kind == "" {
			u.Kind, u.Where = kind, where
		}
		if u.Kind == kind && l != (Login{}) && !slices.Contains(u.Logins, l) {
			u.Logins = append(u.Logins, l)
		}
	}
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		look(k, v)
	}
	for _, a := range args {
		where := "an argument"
		if k, v, ok := strings.Cut(a, "="); ok && strings.HasPrefix(a, "-") {
			a, where = v, "argument "+strings.TrimLeft(k, "-")
		}
		look(where, a)
	}
	return u
}

// goMySQL is user:password@tcp(host:port)/database?..., as github.com/go-sql-driver/mysql has it. The user ends at the first
// colon, the password at the last @.
var goMySQL = regexp.MustCompile(`^(?:([^:]*)(?::(.*))?@)?tcp\(([^)]*)\)/([^?]*)`)

func parse(text string) (kind string, l Login, ok bool) {
	if !strings.Contains(text, marker) {
		return "", l, false
	}
	if m := goMySQL.FindStringSubmatch(text); m != nil && host(m[3]) == marker {
		return MySQL, Login{m[1], m[2], m[4]}, true
	}
	if scheme, _, found := strings.Cut(text, "://"); found {
		kind := schemes[strings.ToLower(scheme)]
		u, err := url.Parse(text)
		if kind == "" || err != nil || u.Hostname() != marker {
			return "", l, false
		}
		l.User = u.User.Username()
		l.Password, _ = u.User.Password()
		if kind == Redis {
			return kind, l, true // the path is a number
		}
		l.Database = strings.Trim(u.Path, "/")
		if kind == PostgreSQL { // libpq takes these from the query too
			q := u.Query()
			for key, to := range map[string]*string{"user": &l.User, "password": &l.Password, "dbname": &l.Database} {
				if v := q.Get(key); v != "" {
					*to = v
				}
			}
		}
		return kind, l, true
	}
	if m := keywords(text); m["host"] == marker {
		return PostgreSQL, Login{m["user"], m["password"], m["dbname"]}, true
	}
	return "", l, false
}

func host(addr string) string {
	h, _, _ := strings.Cut(addr, ":")
	return h
}

// keywords reads a connection string of libpq: key = value, the value in single quotes where it has spaces, \ before a quote or
// a backslash. Nil where it is none.
func keywords(s string) map[string]string {
	m := map[string]string{}
	for {
		s = strings.TrimLeft(s, " \t\n")
		if s == "" {
			return m
		}
		k, rest, ok := strings.Cut(s, "=")
		k = strings.TrimRight(k, " \t\n")
		if !ok || k == "" || strings.ContainsAny(k, " \t\n'\\") {
			return nil
		}
		rest = strings.TrimLeft(rest, " \t\n")
		quoted := strings.HasPrefix(rest, "'")
		if quoted {
			rest = rest[1:]
		}
		var v strings.Builder
		i, closed := 0, false
		for ; i < len(rest); i++ {
			c := rest[i]
			if c == '\\' && i+1 < len(rest) {
				i++
				v.WriteByte(rest[i])
				continue
			}
			if quoted && c == '\'' || !quoted && (c == ' ' || c == '\t' || c == '\n') {
				i++
				closed = true
				break
			}
			v.WriteByte(c)
		}
		if quoted && !closed {
			return nil
		}
		m[k] = v.String()
		s = rest[i:]
	}
}

// wrong says what a login lacks for an engine; empty: nothing.
func (l Login) wrong(kind string) (message, hint string) {
	for _, s := range []string{l.User, l.Password, l.Database} {
		if strings.ContainsRune(s, 0) || !utf8.ValidString(s) {
			return "a user, password or database is not text", "use letters and digits"
		}
	}
	switch {
	case kind == Redis && l.User != "" && l.Password == "":
		return "user " + l.User + " has no password", "write one, of any text"
	case kind == Redis:
		return "", ""
	case l.User == "":
		return "nothing says as whom the service logs in", "write user:, password: and database:, or name it in a DSN under env:, as in " + example[kind]
	case l.User == admin:
		return "the role " + admin + " is Fairlead's own", "use another user"
	case l.Password == "":
		return "role " + l.User + " has no password", "write one, of any text, as in " + example[kind]
	case l.Database == "":
		return "nothing names the database", "write database:, or name it in the DSN, as in " + example[kind]
	case len(l.User) > 63 || len(l.Database) > 63:
		return "the name of a role or a database has more than 63 bytes", "use a shorter one"
	}
	return "", ""
}

var example = map[string]string{PostgreSQL: "postgres://shop:secret@{{db}}/shop", MySQL: "shop:secret@tcp({{db}})/shop"}

// admin is the engine's own administrator; its password is random and in the engine's folder only.
const admin = "fairlead"

// WithDefaults fills in what the engine's own clients would.
func (l Login) WithDefaults(kind string) Login {
	if kind == PostgreSQL && l.Database == "" {
		l.Database = l.User
	}
	return l
}
