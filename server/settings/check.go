package settings

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// rule is how one kind of value is checked. The pattern, enum, least and most are also what the JSON schema says; what
// they cannot say is in reader.check.
type rule struct {
	pattern     *regexp.Regexp
	enum        []string
	least, most int // of a number; both 0 for none
	want        string
	hint        string
}

const (
	labelPattern  = `^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`
	objectPattern = `^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	hostPattern   = `^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*$`
)

// rules are the checks that fields name in their tags.
var rules = map[string]rule{
	"argument":      {pattern: regexp.MustCompile(`^[^\x00]*$`), want: "text without a zero byte", hint: "remove the zero byte"},
	"dependency":    {pattern: regexp.MustCompile(hostPattern), want: "a Service's name or a host", hint: "write it as fairlead deps shows it, such as postgres or rates.finance"},
	"duration":      {pattern: regexp.MustCompile(`^\+?([0-9]+(\.[0-9]*)?(ns|us|µs|μs|ms|s|m|h))+$|^0$`)},
	"engine":        {enum: []string{"postgresql", "mysql", "mariadb", "redis"}},
	"env":           {},
	"env-name":      {pattern: regexp.MustCompile(`^[^=\x00]+$`), want: "a variable's name", hint: "a name has at least one character and no ="},
	"file":          {pattern: regexp.MustCompile(`^[^\x00]+$`), want: "a file", hint: "write a path"},
	"flag":          {pattern: regexp.MustCompile(`^--?[A-Za-z][^\x00]*$`), want: "a flag of go build", hint: "write each flag with its value as one element, such as -ldflags=-X main.version=dev"},
	"from":          {pattern: regexp.MustCompile(`^[^\x00]+$`), want: "a folder", hint: "write a path relative to this file"},
	"host":          {pattern: regexp.MustCompile(`^(` + strings.Trim(hostPattern, "^$") + `|\[?[0-9A-Fa-f:.]+\]?)$`), want: "a host name or address", hint: "write the name alone, such as orders.test, without scheme, port or path"},
	"image":         {pattern: regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9._/:@]*$`), want: "an image", hint: "write it as docker pull takes it, such as registry.example.com/static:nonroot, without a scheme"},
	"calls":         {enum: []string{"enforce", "warn", "off"}},
	"isolation":     {enum: []string{"auto", "namespace", "none"}},
	"label":         {pattern: regexp.MustCompile(labelPattern), want: "a DNS label", hint: "use at most 63 lower-case letters, digits and dashes, with a letter first and no dash last"},
	"lease":         {pattern: regexp.MustCompile(`^(([0-9]+[dhms])+|never)$`), want: "a duration of five minutes or more, or never", hint: "write it as 90m, 2h or 3d, or never"},
	"main":          {pattern: regexp.MustCompile(`^[^-\x00][^\x00]*$`), want: "a folder or an import path", hint: "write it as ./cmd/orders or example.com/shop/cmd/orders"},
	"mode":          {enum: []string{"shared", "fresh", "off"}},
	"namespace":     {pattern: regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`), want: "a namespace", hint: "use at most 63 lower-case letters, digits and dashes, with no dash first or last"},
	"object":        {pattern: regexp.MustCompile(objectPattern), want: "a name in Kubernetes", hint: "use lower-case letters, digits, dashes and dots"},
	"on":            {enum: []string{"local", "kubernetes"}},
	"pattern":       {pattern: regexp.MustCompile(`^[^\x00\n]*[^\x00\s][^\x00\n]*$`), want: "a pattern as in .gitignore", hint: "write it as in .gitignore, such as *.tmp or gen/"},
	"pod-path":      {pattern: regexp.MustCompile(`^/[^\x00]*$`), want: "an absolute path in the pod", hint: "begin it with / and leave out . and .. and double slashes"},
	"port":          {least: 1, most: 65535},
	"range":         {pattern: regexp.MustCompile(`^[0-9A-Fa-f:.]+/[0-9]+$`), want: "a range of addresses", hint: "write it as 10.20.0.0/16"},
	"registry":      {pattern: regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9._:]*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*/?$`), want: "a registry", hint: "write the host with its path, such as registry.example.com/dev, without a scheme"},
	"remote":        {pattern: regexp.MustCompile(`^[^-\x00-\x20][^\x00-\x1f]*$`), want: "where a git repository is", hint: "write a URL such as https://git.example.com/team/registry.git, or a path"},
	"resource":      {pattern: regexp.MustCompile(`^[a-z0-9]([-a-z0-9./]*[a-z0-9])?$`), want: "a resource's name", hint: "write it as in a ResourceQuota, such as pods or requests.memory"},
	"seed":          {pattern: regexp.MustCompile(`^[^\x00\n]+$`), want: "a Job or a file", hint: "write the name of a Job, or a file ending in .sql, .rdb or .redis"},
	"tag":           {pattern: regexp.MustCompile(`^[A-Za-z0-9_.]+$`), want: "a build tag", hint: "use letters, digits, underscores and dots"},
	"text":          {pattern: regexp.MustCompile(`^[^\x00\n]+$`), want: "text", hint: "write one line of text"},
	"text-or-empty": {pattern: regexp.MustCompile(`^[^\x00]*$`), want: "text without a zero byte", hint: "remove the zero byte"},
	"to":            {pattern: regexp.MustCompile(`^/[^\x00]*[^\x00/]$`), want: "an absolute path in the pod", hint: "begin it with / and leave out . and .. and double slashes"},
	"url-path":      {pattern: regexp.MustCompile(`^/[^\x00-\x20]*$`), want: "a path of a URL", hint: "begin it with /, as in /healthz"},
	"ticket":        {pattern: regexp.MustCompile(`^https?://[^\x00-\x20]*\{key\}[^\x00-\x20]*$`), want: "where a ticket is", hint: "write a URL with {key} in it, such as https://acme.atlassian.net/browse/{key}"},
	"version":       {least: 1, most: 1},
}

// scpPattern is git's short form for ssh, as git@git.example.com:team/registry.git.
var scpPattern = regexp.MustCompile(`^([-A-Za-z0-9_.]+@)?[A-Za-z0-9][-A-Za-z0-9.]*:[^\\:]`)

// check checks a value and returns it in its final form, with paths made absolute.
func (r *reader) check(n *yaml.Node, name, at, s string) (string, bool) {
	if name == "" {
		return s, true
	}
	c, ok := rules[name]
	if !ok {
		panic("settings: no check " + name)
	}
	if len(c.enum) > 0 && !slices.Contains(c.enum, s) {
		hint := "write " + strings.Join(c.enum, " or ")
		if near := nearest(s, c.enum); near != "" {
			hint = "did you mean " + near + "?"
		}
		r.invalid(n, at, strconv.Quote(s)+" is none of "+strings.Join(c.enum, ", "), hint)
		return "", false
	}
	if c.most > 0 {
		num, err := strconv.Atoi(s)
		if err != nil || num < c.least || num > c.most {
			if c.least == c.most {
				r.invalid(n, at, s+" is not "+strconv.Itoa(c.least), "write "+strconv.Itoa(c.least))
			} else {
				r.invalid(n, at, s+" is out of range", "write a number from "+strconv.Itoa(c.least)+" to "+strconv.Itoa(c.most))
			}
			return "", false
		}
	}
	if c.pattern != nil && !c.pattern.MatchString(s) {
		r.invalid(n, at, strconv.Quote(s)+" is not "+c.want, c.hint)
		return "", false
	}
	switch name {
	case "host":
		if strings.Contains(s, ":") && net.ParseIP(strings.Trim(s, "[]")) == nil {
			r.invalid(n, at, strconv.Quote(s)+" is not "+c.want, c.hint)
			return "", false
		}
		return strings.ToLower(s), true
	case "image":
		if strings.Contains(s, "://") {
			r.invalid(n, at, strconv.Quote(s)+" is not "+c.want, c.hint)
			return "", false
		}
	case "range":
		if _, err := netip.ParsePrefix(s); err != nil {
			r.invalid(n, at, strconv.Quote(s)+" is not "+c.want, c.hint)
			return "", false
		}
	case "pattern":
		if _, err := path.Match(strings.TrimPrefix(s, "!"), "x"); err != nil {
			r.invalid(n, at, strconv.Quote(s)+" is not a pattern: a bracket is not closed", c.hint)
			return "", false
		}
	case "lease":
		if d, err := Duration(s); err != nil || d != 0 && d < leastLease {
			r.invalid(n, at, strconv.Quote(s)+" is not "+c.want, c.hint)
			return "", false
		}
	case "pod-path", "to":
		if path.Clean(s) != s {
			r.invalid(n, at, strconv.Quote(s)+" is not "+c.want+" in its shortest form", "write "+path.Clean(s))
			return "", false
		}
		if name == "to" {
			return s, r.checkTo(n, at, s)
		}
	case "main":
		return r.mainPath(s), true
	case "file":
		return r.filePath(s), true
	case "remote":
		u, err := url.Parse(s)
		switch {
		case strings.Contains(s, "::"), strings.Contains(s, "://") && err != nil:
			r.invalid(n, at, "this is not "+c.want, c.hint) // not repeated: it may have a password in it
			return "", false
		case strings.Contains(s, "://"):
			if _, secret := u.User.Password(); secret || u.User != nil && u.Scheme != "ssh" {
				r.invalid(n, at, "there are credentials in the URL", "remove them, and give them to git by a credential helper")
				return "", false
			}
			return s, true
		case scpPattern.MatchString(s) && filepath.VolumeName(s) == "":
			return s, true
		}
		return r.filePath(s), true
	case "seed":
		return r.checkSeed(n, at, s)
	case "from":
		return r.checkFrom(n, at, s)
	}
	return s, true
}

// Folders that belong to the system of a container, with all that is in them, and folders that hold more than the
// service's files, where a folder in them will do. What a sync does not have is deleted from its folder.
var (
	systemFolders = []string{"/bin", "/boot", "/dev", "/lib", "/lib32", "/lib64", "/proc", "/run/secrets", "/sbin", "/sys", "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/sbin", "/var/run/secrets"}
	sharedFolders = []string{"/etc", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/usr", "/usr/local", "/usr/local/bin", "/usr/local/lib", "/usr/share", "/var", "/var/cache", "/var/lib", "/var/log", "/var/run", "/var/tmp", "/etc/ssl", "/etc/ssl/certs"}
)

func (r *reader) checkTo(n *yaml.Node, at, s string) bool {
	for _, d := range systemFolders {
		if s == d || strings.HasPrefix(s, d+"/") {
			r.invalid(n, at, s+" belongs to the system", "choose a folder of the service, such as /app/files")
			return false
		}
	}
	if slices.Contains(sharedFolders, s) {
		r.invalid(n, at, s+" holds more than the service's files, and what is not in `from` would be deleted", "choose a folder in it, such as "+s+"/files")
		return false
	}
	return true
}

// checkFrom makes a folder absolute and sees that it is in the repository.
func (r *reader) checkFrom(n *yaml.Node, at, s string) (string, bool) {
	p := filepath.FromSlash(s)
	if filepath.IsAbs(p) || strings.HasPrefix(s, "/") || filepath.VolumeName(p) != "" {
		r.invalid(n, at, s+" is not relative to this file", "write it relative to "+r.base)
		return "", false
	}
	p = filepath.Join(r.base, p)
	real, err := filepath.EvalSymlinks(p)
	switch {
	case err != nil:
		r.invalid(n, at, "there is no folder "+p, "make it, or correct the path: it is relative to "+r.base)
		return "", false
	case !within(real, r.root):
		message := s + " is outside of the repository " + r.root
		if real != p {
			message = s + " leads to " + real + ", outside of the repository " + r.root
		}
		r.invalid(n, at, message, "bring the files into the repository")
		return "", false
	}
	if st, err := os.Stat(real); err != nil || !st.IsDir() {
		r.invalid(n, at, s+" is not a folder", "name the folder that the file is in")
		return "", false
	}
	return real, true
}

// checkSeed takes a Job's name as it is, and makes a file's path absolute: one that has a slash or an ending of seed files.
func (r *reader) checkSeed(n *yaml.Node, at, s string) (string, bool) {
	isFile := slices.Contains([]string{".sql", ".rdb", ".redis"}, path.Ext(s))
	switch {
	case !isFile && strings.Contains(s, "/"):
		r.invalid(n, at, strconv.Quote(s)+" ends in none of .sql, .rdb, .redis", rules["seed"].hint)
		return "", false
	case !isFile && !rules["object"].pattern.MatchString(s):
		r.invalid(n, at, strconv.Quote(s)+" is not "+rules["seed"].want, rules["seed"].hint)
		return "", false
	case !isFile:
		return s, true
	case filepath.IsAbs(filepath.FromSlash(s)) || strings.HasPrefix(s, "/"):
		r.invalid(n, at, s+" is not relative to this file", "write it relative to "+r.base)
		return "", false
	}
	p := filepath.Join(r.base, filepath.FromSlash(s))
	real, err := filepath.EvalSymlinks(p)
	if err != nil {
		r.invalid(n, at, "there is no file "+p, "make it, or correct the path: it is relative to "+r.base)
		return "", false
	}
	if !within(real, r.root) {
		r.invalid(n, at, s+" is outside of the repository "+r.root, "bring the file into the repository")
		return "", false
	}
	if !fileExists(real) {
		r.invalid(n, at, s+" is no file", "name the file itself")
		return "", false
	}
	return real, true
}

// leastLease is the shortest that an unused environment may be given: its lease is renewed once a minute, and a minute of a
// lost network must not cost it.
const leastLease = 5 * time.Minute

// Duration reads a duration that may have days in front, as in 3d or 1d12h; "never" is 0.
func Duration(s string) (time.Duration, error) {
	if s == "never" {
		return 0, nil
	}
	var days int
	rest := s
	if before, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.Atoi(before)
		if err != nil || n < 0 || n > 36500 {
			return 0, fmt.Errorf("%q is no duration", s)
		}
		days, rest = n, after
		if rest == "" {
			rest = "0"
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > 36500*24*time.Hour {
		return 0, fmt.Errorf("%q is no duration", s)
	}
	if d += time.Duration(days) * 24 * time.Hour; d <= 0 {
		return 0, fmt.Errorf("%q is no duration", s)
	}
	return d, nil
}

// mainPath makes a folder absolute; an import path stays as it is.
func (r *reader) mainPath(s string) string {
	p := filepath.FromSlash(s)
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	joined := filepath.Join(r.base, p)
	first, _, _ := strings.Cut(s, "/")
	if first == "." || first == ".." {
		return joined
	}
	if st, err := os.Stat(joined); err == nil && st.IsDir() {
		return joined
	}
	return s
}

// filePath makes a file's path absolute.
func (r *reader) filePath(s string) string {
	if rest, ok := strings.CutPrefix(s, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, filepath.FromSlash(rest))
		}
	}
	p := filepath.FromSlash(s)
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(r.base, p)
}
