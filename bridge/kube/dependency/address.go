package dependency

import (
	"net"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// address is a place that a value names.
type address struct {
	scheme string // lower case; empty where the value has none
	host   string // lower case, without a final dot
	port   int    // 0 where the value has none
	keyed  bool   // the value itself says that it is a host, as "host=db"
	// unsure: the value has more than one reading, and this may be a part of a password. It counts where it is the name
	// of a Service, and is told nowhere else.
	unsure bool
}

// plain says that nothing but its place tells an address from any other word.
func (a address) plain() bool { return a.scheme == "" && a.port == 0 && !a.keyed }

// maxValue bounds what is read of one value. An address is short; a whole file in a variable is read to there.
const maxValue = 64 << 10

var (
	schemeStart = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*)://`)
	mysqlDSN    = regexp.MustCompile(`(?:^|@)tcp[46]?\(([^()]*)\)`) // go-sql-driver/mysql
	keyStart    = regexp.MustCompile(`(?i)(^|[\s;])(host|hostaddr|server|data source|addr|address)\s*=`)
	hostName    = regexp.MustCompile(`^[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?)*$`)
)

// addresses reads a value: a URL, a DSN, pairs of keys and values, or a list of hosts.
func addresses(value string) []address {
	value = strings.Trim(strings.TrimSpace(value), `"'`)
	if len(value) > maxValue {
		value = value[:maxValue]
	}
	if value == "" {
		return nil
	}
	if strings.Contains(value, "://") {
		return urls(value)
	}
	if m := mysqlDSN.FindAllStringSubmatch(value, -1); m != nil {
		var out []address
		for _, g := range m {
			if a, ok := hostPort(g[1]); ok {
				a.scheme = "mysql"
				out = append(out, a)
			}
		}
		return out
	}
	if keyStart.MatchString(value) {
		return keyValues(value)
	}
	return hosts(value)
}

// urls reads the URLs in a text. What is around them is not looked at.
func urls(text string) []address {
	starts := schemeStart.FindAllStringSubmatchIndex(text, -1)
	unsure := false
	for _, s := range starts {
		// In the middle of a word "://" may belong to a password, and then nothing here is what it seems.
		if s[0] > 0 && !strings.ContainsRune(",; \t\r\n\"'`=|([{<>:?&", rune(text[s[0]-1])) {
			unsure = true
		}
	}
	var out []address
	for i, s := range starts {
		rest := text[s[1]:]
		if i+1 < len(starts) {
			rest = text[s[1]:starts[i+1][0]]
		}
		if end := strings.IndexAny(rest, " \t\r\n\"'`<>|"); end >= 0 {
			rest = rest[:end]
		}
		scheme := strings.ToLower(text[s[2]:s[3]])
		authority, tail := rest, ""
		if end := strings.IndexAny(rest, "/?#;"); end >= 0 {
			authority, tail = rest[:end], rest[end:]
		}
		switch scheme {
		case "unix", "file", "http+unix", "unix-abstract":
			continue
		case "dns", "passthrough", "xds", "kubernetes", "k8s": // gRPC targets: the authority is a name server
			authority, tail = strings.TrimPrefix(tail, "/"), ""
		}
		before := len(out)
		out = append(out, hostList(authority)...)
		// A password with an unescaped slash moves the real host behind it; so does a path with an @ in it.
		if strings.Contains(tail, "@") && !strings.Contains(authority, "@") {
			second := tail[strings.LastIndexByte(tail, '@')+1:]
			if end := strings.IndexAny(second, "/?#;"); end >= 0 {
				second = second[:end]
			}
			out = append(out, hostList(second)...)
			for j := before; j < len(out); j++ {
				out[j].unsure = true
			}
		}
		for j := before; j < len(out); j++ {
			out[j].scheme = scheme
			out[j].unsure = out[j].unsure || unsure
		}
	}
	return out
}

// hostList reads "user:password@a:1,b:2".
func hostList(s string) []address {
	s = s[strings.LastIndexByte(s, '@')+1:]
	var out []address
	for _, h := range strings.Split(s, ",") {
		if a, ok := hostPort(h); ok {
			out = append(out, a)
		}
	}
	return out
}

// keyValues reads "host=db port=5432", as libpq and ADO.NET have it.
func keyValues(s string) []address {
	var list, ports []string
	for s = strings.TrimLeft(s, " \t\r\n;"); s != ""; s = strings.TrimLeft(s, " \t\r\n;") {
		key, rest, ok := strings.Cut(s, "=")
		if !ok {
			break
		}
		var v string
		v, s = quoted(strings.TrimLeft(rest, " \t"))
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "host", "hostaddr", "server", "data source", "addr", "address":
			list = append(list, strings.Split(strings.TrimPrefix(v, "tcp:"), ",")...)
		case "port":
			ports = strings.Split(v, ",")
		}
	}
	if len(list) == 2 && port(list[1]) != 0 { // SQL Server: "tcp:host,1433"
		list, ports = list[:1], list[1:]
	}
	var out []address
	for i, h := range list {
		a, ok := hostPort(h)
		if !ok {
			continue
		}
		a.keyed = true
		if a.port == 0 && len(ports) > 0 {
			a.port = port(ports[min(i, len(ports)-1)])
		}
		out = append(out, a)
	}
	return out
}

// quoted reads a value that may be in quotes, and returns what follows it.
func quoted(s string) (value, rest string) {
	if s != "" && (s[0] == '\'' || s[0] == '"') {
		var b strings.Builder
		for i := 1; i < len(s); i++ {
			switch {
			case s[i] == '\\' && i+1 < len(s):
				i++
				b.WriteByte(s[i])
			case s[i] == s[0]:
				return b.String(), s[i+1:]
			default:
				b.WriteByte(s[i])
			}
		}
		return b.String(), ""
	}
	if end := strings.IndexAny(s, " \t\r\n;"); end >= 0 {
		return s[:end], s[end:]
	}
	return s, ""
}

// hosts reads a list of hosts with or without ports. A word that cannot be a host makes the value a text, in which a bare
// word means nothing.
func hosts(s string) []address {
	var out []address
	text := false
	if _, ip := hostPort(s); !ip && strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") { // a list in JSON
		s = s[1 : len(s)-1]
	}
	for _, item := range strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`,;"'`, r) }) {
		if strings.Contains(item, "=") { // an option of StackExchange.Redis, among hosts
			continue
		}
		userinfo := strings.LastIndexByte(item, '@')
		item = item[userinfo+1:]
		item = strings.TrimPrefix(strings.TrimPrefix(item, "dns:"), "passthrough:")
		if end := strings.IndexByte(item, '/'); end >= 0 {
			item = item[:end]
		}
		a, ok := hostPort(item)
		if !ok || userinfo >= 0 && a.port == 0 { // an e-mail address
			text = true
			continue
		}
		a.unsure = userinfo >= 0
		out = append(out, a)
	}
	if !text {
		return out
	}
	var sure []address
	for _, a := range out {
		if a.port != 0 {
			sure = append(sure, a)
		}
	}
	return sure
}

// hostPort reads "host", "host:port", "[::1]:80" or an IP address.
func hostPort(s string) (address, bool) {
	var a address
	switch {
	case strings.HasPrefix(s, "["):
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return a, false
		}
		rest := s[end+1:]
		if s = s[1:end]; net.ParseIP(s) == nil {
			return a, false
		}
		if rest != "" {
			if a.port = port(strings.TrimPrefix(rest, ":")); a.port == 0 || rest[0] != ':' {
				return address{}, false
			}
		}
		a.host = strings.ToLower(s)
		return a, true
	case strings.Count(s, ":") == 1:
		h, p, _ := strings.Cut(s, ":")
		if a.port = port(p); a.port == 0 {
			return address{}, false
		}
		s = h
	case net.ParseIP(s) != nil:
		return address{host: strings.ToLower(s)}, true
	}
	a.host = strings.ToLower(strings.TrimSuffix(s, "."))
	if len(a.host) > 253 || !hostName.MatchString(a.host) {
		return address{}, false
	}
	// A number is no host, and neither is a version or a time; an IP address is.
	if last := a.host[strings.LastIndexByte(a.host, '.')+1:]; strings.Trim(last, "0123456789") == "" && net.ParseIP(a.host) == nil {
		return address{}, false
	}
	return a, true
}

// port reads a port; 0 is none.
func port(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 65535 || s[0] == '+' {
		return 0
	}
	return n
}

// addressWords are the words of a variable's name that say that its value is an address; as an ending they count too,
// as in PGHOST and DATABASEURL.
var (
	addressWords = map[string]bool{"addr": true, "addrs": true, "address": true, "addresses": true, "host": true, "hosts": true,
		"hostname": true, "url": true, "urls": true, "uri": true, "uris": true, "endpoint": true, "endpoints": true, "dsn": true,
		"server": true, "servers": true, "broker": true, "brokers": true, "bootstrap": true, "upstream": true, "backend": true,
		"target": true, "peer": true, "peers": true, "sentinel": true, "sentinels": true}
	addressEnds = []string{"host", "url", "uri", "dsn", "addr", "endpoint"}
	// otherWords end a name that is of something else, whatever comes before: SERVER_NAME, HOST_PORT.
	otherWords = map[string]bool{"name": true, "user": true, "username": true, "password": true, "mode": true, "type": true, "scheme": true,
		"path": true, "id": true, "version": true, "enabled": true, "timeout": true, "port": true, "env": true, "level": true}
)

// namesAddress says whether the name of a variable, a key or a flag is that of an address.
func namesAddress(name string) bool {
	ws := words(name)
	if len(ws) == 0 {
		return false
	}
	last := ws[len(ws)-1]
	if otherWords[last] && !(last == "name" && len(ws) > 1 && ws[len(ws)-2] == "host") {
		return false
	}
	for _, w := range ws {
		if addressWords[w] {
			return true
		}
		for _, e := range addressEnds {
			if len(w) > len(e) && strings.HasSuffix(w, e) {
				return true
			}
		}
	}
	return false
}

// words splits DATABASE_URL, database-url and databaseUrl.
func words(name string) []string {
	var b strings.Builder
	lower := false
	for _, r := range name {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			b.WriteByte(' ')
		case unicode.IsUpper(r) && lower:
			b.WriteByte(' ')
			fallthrough
		default:
			b.WriteRune(unicode.ToLower(r))
		}
		lower = unicode.IsLower(r)
	}
	return strings.Fields(b.String())
}
