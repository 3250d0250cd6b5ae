package debugadapter

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"fairlead.dev/api"
)

// Config is what a debug configuration may say: the members of a launch or attach request.
type Config struct {
	// Program is a folder of the service, or a Go file in it. With mode "core": Delve's name for Exe.
	Program string
	// Name is an environment's or a service's name ("service"), for attach. Without Program and Name: the only one there is.
	Name string
	// Mode is "" or "debug" (a service), "test" (the tests of the folder Program) or "core". For attach, "", "debug",
	// "remote" and "local" are all the service.
	Mode string
	// Args and Env are given to the process.
	Args []string
	Env  map[string]string
	// On says where: "local" or "kubernetes"; empty: as the project's settings say.
	On string
	// Main is the main package, where the folder alone does not say.
	Main string
	// CoreFilePath is the core file of mode "core", and Exe the executable that left it.
	CoreFilePath, Exe string
	// OnSave is what a save does while the process stands in the debugger: "continue" (it waits until the process is let
	// go), "now", or "never". Empty is "continue".
	OnSave string
	// NoDebug runs without the debugger.
	NoDebug bool
	// StopOnEntry stops the session's first process before its first instruction.
	StopOnEntry bool
	// Display are Delve's own members that say how things are shown. They are given to every debugger.
	Display map[string]json.RawMessage
}

// fields are the members that mean something, each with how it is read.
func fields() map[string]func(*Config, json.RawMessage) error {
	text := func(at func(*Config) *string) func(*Config, json.RawMessage) error {
		return func(c *Config, v json.RawMessage) error { return into(v, at(c), "a string") }
	}
	choice := func(at func(*Config) *string, of ...string) func(*Config, json.RawMessage) error {
		return func(c *Config, v json.RawMessage) error {
			if err := into(v, at(c), "a string"); err != nil {
				return err
			}
			if got := *at(c); got != "" && !slices.Contains(of, got) {
				return fmt.Errorf("must be one of %q, not %q", of, got)
			}
			return nil
		}
	}
	flag := func(at func(*Config) *bool) func(*Config, json.RawMessage) error {
		return func(c *Config, v json.RawMessage) error { return into(v, at(c), "true or false") }
	}
	return map[string]func(*Config, json.RawMessage) error{
		"program":      text(func(c *Config) *string { return &c.Program }),
		"service":      text(func(c *Config) *string { return &c.Name }),
		"main":         text(func(c *Config) *string { return &c.Main }),
		"coreFilePath": text(func(c *Config) *string { return &c.CoreFilePath }),
		"exe":          text(func(c *Config) *string { return &c.Exe }),
		"mode":         choice(func(c *Config) *string { return &c.Mode }, "debug", "test", "core", "remote", "local"),
		"on":           choice(func(c *Config) *string { return &c.On }, "local", "kubernetes"),
		"onSave":       choice(func(c *Config) *string { return &c.OnSave }, "continue", "now", "never"),
		"noDebug":      flag(func(c *Config) *bool { return &c.NoDebug }),
		"stopOnEntry":  flag(func(c *Config) *bool { return &c.StopOnEntry }),
		"args": func(c *Config, v json.RawMessage) error {
			return into(v, &c.Args, "a list of strings")
		},
		"env": func(c *Config, v json.RawMessage) error {
			var env map[string]*string // a null would be read as an empty string
			if err := into(v, &env, "an object of strings"); err != nil {
				return err
			}
			c.Env = make(map[string]string, len(env))
			for k, s := range env {
				if s == nil {
					return fmt.Errorf("must be an object of strings: %q is null", k)
				}
				c.Env[k] = *s
			}
			return nil
		},
	}
}

// display are the members that Delve reads, with the type that it expects. What it would only find wrong when a process
// is there is found wrong at once.
func display() map[string]func(json.RawMessage) error {
	as := func(v any, kind string) func(json.RawMessage) error {
		return func(m json.RawMessage) error { return into(m, v, kind) }
	}
	return map[string]func(json.RawMessage) error{
		"stackTraceDepth":      as(new(int), "a number"),
		"maxStringLen":         as(new(int), "a number"),
		"maxArrayValues":       as(new(int), "a number"),
		"showGlobalVariables":  as(new(bool), "true or false"),
		"showRegisters":        as(new(bool), "true or false"),
		"showRawStrings":       as(new(bool), "true or false"),
		"hideSystemGoroutines": as(new(bool), "true or false"),
		"goroutineFilters":     as(new(string), "a string"),
		"showPprofLabels":      as(new([]string), "a list of strings"),
		"substitutePath": func(v json.RawMessage) error {
			const kind = `a list of {"from": "...", "to": "..."}`
			var rules []struct{ From, To *string }
			if err := into(v, &rules, kind); err != nil {
				return err
			}
			for _, r := range rules {
				if r.From == nil || r.To == nil {
					return fmt.Errorf("must be %s", kind)
				}
			}
			return nil
		},
	}
}

// editors are members that editors add for themselves, or that go configurations carry and that mean nothing here. What
// begins with two underscores is an editor's too.
func editors() []string {
	return []string{
		"name", "type", "request", "presentation", "preLaunchTask", "postDebugTask", "internalConsoleOptions", "debugServer",
		"serverReadyAction", "linux", "osx", "windows", "suppressMultipleSessionWarning", "restart", "consoleName",
		"console", "outputMode", "trace", "showLog", "logOutput", // of go configurations
		"label", "adapter", "build", "tcp_connection", // Zed's
	}
}

func into(v json.RawMessage, to any, kind string) error {
	if string(v) == "null" {
		return fmt.Errorf("must be %s, not null", kind)
	}
	if err := json.Unmarshal(v, to); err != nil {
		return fmt.Errorf("must be %s", kind)
	}
	return nil
}

const codeBadConfig = "bad-debug-configuration"

// parseConfig reads the arguments of a launch or attach request. Its error is a *api.Problem that names the member.
func parseConfig(args json.RawMessage, attach bool) (Config, error) {
	var c Config
	var members obj
	if len(args) > 0 {
		if err := json.Unmarshal(args, &members); err != nil {
			return c, &api.Problem{Code: codeBadConfig, Message: "the debug configuration is not an object", Hint: `give it members, such as "program": "${fileDirname}"`}
		}
	}
	known, shown, ignored := fields(), display(), editors()
	bad := func(key, what string) error {
		return &api.Problem{Code: codeBadConfig, Message: fmt.Sprintf("debug configuration: %q %s", key, what), Hint: "change it in the debug configuration (launch.json in VS Code)"}
	}
	for _, key := range slices.Sorted(maps.Keys(members)) {
		v := members[key]
		switch {
		case known[key] != nil:
			if err := known[key](&c, v); err != nil {
				return c, bad(key, err.Error())
			}
		case shown[key] != nil:
			if err := shown[key](v); err != nil {
				return c, bad(key, err.Error())
			}
			if c.Display == nil {
				c.Display = map[string]json.RawMessage{}
			}
			c.Display[key] = v
		case slices.Contains(ignored, key), strings.HasPrefix(key, "__"):
		default:
			names := slices.Sorted(maps.Keys(known))
			names = append(names, slices.Sorted(maps.Keys(shown))...)
			p := &api.Problem{Code: codeBadConfig, Message: fmt.Sprintf("debug configuration: there is no %q", key)}
			if near := nearest(key, names); near != "" {
				p.Hint = fmt.Sprintf("did you mean %q?", near)
			} else {
				p.Hint = "remove it; there are " + strings.Join(names, ", ")
			}
			return c, p
		}
	}
	return c, c.check(attach, bad)
}

func (c *Config) check(attach bool, bad func(key, what string) error) error {
	switch {
	case !attach && (c.Mode == "remote" || c.Mode == "local"):
		return bad("mode", `must be "debug", "test" or "core" to launch: use the request "attach" for what runs`)
	case attach && (c.Mode == "test" || c.Mode == "core"):
		return bad("mode", fmt.Sprintf("cannot be %q to attach: use the request %q", c.Mode, "launch"))
	case c.Mode == "core" && c.CoreFilePath == "":
		return bad("coreFilePath", `must name the core file for the mode "core"`)
	case c.Mode == "core" && c.Program == "" && c.Exe == "" && c.Name == "":
		return bad("exe", `must name the executable that left the core file, or "service" the environment that it lies in`)
	case c.Mode != "core" && c.CoreFilePath != "":
		return bad("coreFilePath", `is only for the mode "core"`)
	case !attach && c.Mode != "core" && c.Program == "":
		return bad("program", "must name a folder of the service, or a Go file in it")
	}
	if attach && (c.Mode == "remote" || c.Mode == "local" || c.Mode == "debug") {
		c.Mode = ""
	}
	return nil
}

// nearest is the name that the key was most likely meant to be, or empty.
func nearest(key string, names []string) string {
	best, least := "", max(2, len(key)/3)+1
	for _, n := range names {
		if d := distance(strings.ToLower(key), strings.ToLower(n)); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance is the number of letters to insert, remove or change.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diag
			if a[i] != b[j] {
				d++
			}
			diag = row[j+1]
			row[j+1] = min(d, row[j]+1, diag+1)
		}
	}
	return row[len(b)]
}
