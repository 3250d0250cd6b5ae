package build

import (
	"fmt"
	"slices"
	"strings"

	"fairlead.dev/api"
)

// flags is what GOFLAGS and the configuration ask of the go command, taken apart far enough that our own -ldflags,
// -gcflags and -tags can be added without replacing the user's: the go command takes a flag on the command line
// instead of the same flag in GOFLAGS, and of several that match a package only the last.
type flags struct {
	goflags string   // GOFLAGS as the go command gets it; never empty, since empty means "as in the go env file"
	args    []string // the configuration's flags, for the command line
	tags    []string
	ldflags []string // values in order, GOFLAGS first
	gcflags []string
}

// Flags of `go build` that take a value, which a configuration may give as an element of its own.
var valueFlags = []string{
	"asmflags", "buildmode", "compiler", "covermode", "coverpkg", "gccgoflags", "gcflags", "installsuffix", "ldflags",
	"mod", "modfile", "overlay", "p", "pgo", "pkgdir", "tags", "toolexec",
}

// Flags that would change where the executable goes or what the output means. In GOFLAGS they are left out: there they
// speak of builds by hand.
var refusedFlags = []string{"C", "debug-actiongraph", "debug-trace", "json", "n", "o", "v", "work", "x"}

// parseFlags takes apart GOFLAGS and the configuration's flags.
func parseFlags(goflags string, extra, tags []string) (flags, error) {
	var f flags
	words, err := splitQuoted(goflags)
	if err != nil {
		// The go command says the same, better, as soon as it runs.
		f.goflags = goflags
		return f, nil
	}
	var keep []string
	for _, w := range words {
		name, value, _ := cutFlag(w)
		switch {
		case name == "tags":
			f.tags = splitTags(value)
		case name == "ldflags":
			f.ldflags = append(f.ldflags, value)
		case name == "gcflags":
			f.gcflags = append(f.gcflags, value)
		case name == "mod" && value == "mod":
			// readonly reads the same modules (and not vendor), but writes no go.mod.
			keep = append(keep, "-mod=readonly")
		case name == "buildvcs" || slices.Contains(refusedFlags, name):
		default:
			keep = append(keep, w)
		}
	}
	// Stamping asks git for its state in every build and makes equal code differ between commits.
	f.goflags = joinQuoted(append(keep, "-buildvcs=false"))

	var extraTags []string
	for i := 0; i < len(extra); i++ {
		w := extra[i]
		name, value, hasValue := cutFlag(w)
		if name == "" {
			return f, badFlag(fmt.Sprintf("build flag %q does not begin with a dash", w), "write each flag with its value as one element, such as -ldflags=-X main.version=dev")
		}
		if slices.Contains(refusedFlags, name) {
			return f, badFlag(fmt.Sprintf("build flag -%s cannot be used here", name), "remove it from the build flags")
		}
		if !hasValue && slices.Contains(valueFlags, name) {
			if i++; i == len(extra) {
				return f, badFlag(fmt.Sprintf("build flag -%s has no value", name), "write it as -"+name+"=VALUE")
			}
			value = extra[i]
			w = "-" + name + "=" + value
		}
		switch {
		case name == "tags":
			extraTags = splitTags(value)
		case name == "ldflags":
			f.ldflags = append(f.ldflags, value)
		case name == "gcflags":
			f.gcflags = append(f.gcflags, value)
		case name == "mod" && value == "mod":
			f.args = append(f.args, "-mod=readonly")
		case name == "buildvcs":
		default:
			f.args = append(f.args, w)
		}
	}
	f.tags = slices.Concat(f.tags, extraTags, tags)
	slices.Sort(f.tags)
	f.tags = slices.Compact(f.tags)
	return f, nil
}

func badFlag(message, hint string) error {
	return &api.Problem{Code: "bad-build-flag", Severity: api.SeverityError, Message: message, Hint: hint}
}

// list returns the flags for `go list`.
func (f *flags) list() []string {
	args := slices.Clone(f.args)
	if len(f.tags) > 0 {
		args = append(args, "-tags="+strings.Join(f.tags, ","))
	}
	return args
}

// build returns the flags for `go build`. Without debug the symbol table and DWARF are left out: linking takes two
// thirds of the time and a difference half of the bytes. With debug the modules' own packages are compiled without
// optimisation, and DWARF is not compressed, because compressed it differs everywhere after every edit.
func (f *flags) build(debug bool, modules []Module) []string {
	args := f.list()
	base := "-s -w"
	if debug {
		// The editor's breakpoints name files as they are here, so the executable does too, whatever else is asked for.
		args = append(args, "-trimpath=false")
		base = "-compressdwarf=false"
		for _, m := range modules {
			args = append(args, "-gcflags="+m.Path+"/...=-N -l")
		}
	}
	for _, v := range f.gcflags {
		if debug && (strings.TrimSpace(v) == "" || strings.HasPrefix(strings.TrimSpace(v), "-")) {
			v = strings.TrimSpace(v + " -N -l") // a value without a pattern is for the main package, the last match
		}
		args = append(args, "-gcflags="+v)
	}
	args = append(args, "-ldflags="+base)
	for _, v := range f.ldflags {
		args = append(args, "-ldflags="+addLdflags(v, base, debug))
	}
	return args
}

// addLdflags puts our linker flags in front of a value of -ldflags, behind its package pattern if it has one, so that
// the user's win. While debugging, what would strip the executable is undone.
func addLdflags(value, base string, debug bool) string {
	pattern, rest := "", strings.TrimSpace(value)
	if rest != "" && rest[0] != '-' {
		i := strings.IndexByte(rest, '=')
		if i <= 0 {
			return value // malformed: the go command explains it
		}
		pattern, rest = rest[:i+1], strings.TrimSpace(rest[i+1:])
	}
	out := pattern + base
	if rest != "" {
		out += " " + rest
	}
	if debug {
		words, _ := splitQuoted(rest)
		for _, w := range words {
			switch name, _, _ := cutFlag(w); name {
			case "s", "w":
				out += " -" + name + "=false"
			}
		}
	}
	return out
}

// cutFlag splits -name=value or --name=value. The name is empty if word is no flag.
func cutFlag(word string) (name, value string, hasValue bool) {
	s, ok := strings.CutPrefix(word, "-")
	if !ok {
		return "", "", false
	}
	s = strings.TrimPrefix(s, "-")
	name, value, hasValue = strings.Cut(s, "=")
	return name, value, hasValue
}

// splitTags splits a value of -tags as the go command does: at commas, or in the old form at spaces.
func splitTags(v string) []string {
	if strings.ContainsAny(v, " '") {
		words, err := splitQuoted(v)
		if err == nil {
			return words
		}
	}
	return strings.FieldsFunc(v, func(r rune) bool { return r == ',' })
}

// splitQuoted splits as the go command splits GOFLAGS and the values of -ldflags (cmd/internal/quoted): at spaces, with
// single or double quotes around whole fields and no escapes; quotes inside a field do not count.
func splitQuoted(s string) ([]string, error) {
	var out []string
	for {
		s = strings.TrimLeft(s, " \t\r\n")
		if s == "" {
			return out, nil
		}
		if q := s[0]; q == '"' || q == '\'' {
			i := strings.IndexByte(s[1:], q)
			if i < 0 {
				return nil, fmt.Errorf("unterminated %c string", q)
			}
			out = append(out, s[1:1+i])
			s = s[i+2:]
			continue
		}
		i := strings.IndexAny(s, " \t\r\n")
		if i < 0 {
			i = len(s)
		}
		out = append(out, s[:i])
		s = s[i:]
	}
}

// joinQuoted is the reverse of splitQuoted. A field that splitQuoted returned can always be written: it never has
// spaces and both kinds of quotes.
func joinQuoted(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		switch {
		case w != "" && w[0] != '"' && w[0] != '\'' && !strings.ContainsAny(w, " \t\r\n"):
			quoted[i] = w
		case !strings.Contains(w, "'"):
			quoted[i] = "'" + w + "'"
		default:
			quoted[i] = `"` + w + `"`
		}
	}
	return strings.Join(quoted, " ")
}
