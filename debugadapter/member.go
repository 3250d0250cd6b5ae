package debugadapter

// Member is one member of a debug configuration, as an editor's completion shows it. parseConfig reads the same; a test
// sees that they agree.
type Member struct {
	Name string `json:"name"`
	// Type is "string", "boolean", "integer", "strings" (a list of them), "map" (an object of strings) or "paths" (a list of
	// {"from", "to"}).
	Type string `json:"type"`
	// Launch and Attach say for which requests it is.
	Launch bool     `json:"launch,omitempty"`
	Attach bool     `json:"attach,omitempty"`
	Enum   []Choice `json:"enum,omitempty"`
	Text   string   `json:"text"`
}

// Choice is one of the values that a member can have.
type Choice struct {
	Value string `json:"value"`
	Text  string `json:"text"`
	// Launch and Attach say for which requests it is; both where neither is set.
	Launch bool `json:"launch,omitempty"`
	Attach bool `json:"attach,omitempty"`
}

// Members are all members that mean something here, the usual ones first. Those that editors add for themselves are not
// among them.
func Members() []Member {
	both := func(name, kind, text string) Member {
		return Member{Name: name, Type: kind, Launch: true, Attach: true, Text: text}
	}
	launch := func(name, kind, text string) Member { return Member{Name: name, Type: kind, Launch: true, Text: text} }
	of := func(m Member, enum ...Choice) Member {
		m.Enum = enum
		return m
	}
	return []Member{
		both("program", "string", "The service's folder, or a Go file in it. Of the mode test: the folder with the tests."),
		of(both("mode", "string", "What is debugged. Without it: the service."),
			Choice{Value: "debug", Text: "The service, in its environment."},
			Choice{Value: "test", Text: "The tests of the folder, beside the service in its environment.", Launch: true},
			Choice{Value: "core", Text: "A core file, with the executable that left it.", Launch: true},
			Choice{Value: "remote", Text: "The service, as other debuggers name it.", Attach: true},
			Choice{Value: "local", Text: "The service, as other debuggers name it.", Attach: true}),
		both("service", "string", "The name of an environment or of its service that runs already. Without it and program: the only one there is. Of the mode core: where the core file lies."),
		launch("args", "strings", "Arguments of the service, or of the test."),
		launch("env", "map", "Variables that are added to the environment of the process."),
		of(launch("on", "string", "Where the environment is. Without it: as the settings say."),
			Choice{Value: "local", Text: "On this machine."},
			Choice{Value: "kubernetes", Text: "In a cluster."}),
		launch("main", "string", "The main package, as ./folder below program or as an import path, where the folder alone does not say."),
		of(both("onSave", "string", "What a save does while the process stands in the debugger."),
			Choice{Value: "continue", Text: "It is built, and swapped in when you continue."},
			Choice{Value: "now", Text: "It is swapped in at once: where the process stood is lost."},
			Choice{Value: "never", Text: "It waits until you restart or end debugging."}),
		both("stopOnEntry", "boolean", "Stop the first process before its first instruction."),
		launch("noDebug", "boolean", "Run it without the debugger."),
		launch("coreFilePath", "string", "Of the mode core: the core file."),
		launch("exe", "string", "Of the mode core: the executable that left the core file, where it is not a service's."),
		both("stackTraceDepth", "integer", "How many frames of a stack are loaded at most."),
		both("maxStringLen", "integer", "How many bytes of a string are loaded."),
		both("maxArrayValues", "integer", "How many elements of an array, a slice or a map are loaded."),
		both("showGlobalVariables", "boolean", "Show the package's variables beside the local ones."),
		both("showRegisters", "boolean", "Show the processor's registers."),
		both("showRawStrings", "boolean", "Show strings as they are, without quotes and escapes."),
		both("hideSystemGoroutines", "boolean", "Leave the runtime's own goroutines out."),
		both("goroutineFilters", "string", "Which goroutines are shown, as in `goroutines -with` of Delve."),
		both("showPprofLabels", "strings", "The pprof labels that a goroutine's name is made of."),
		both("substitutePath", "paths", "Folders that have another name where the program was built, from the editor's to the program's. What Fairlead builds needs none."),
	}
}
