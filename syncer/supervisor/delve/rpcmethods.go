package delve

import (
	"errors"
	"fmt"

	"github.com/go-delve/delve/pkg/dwarf/op"
	"github.com/go-delve/delve/pkg/proc"
	"github.com/go-delve/delve/pkg/version"
	"github.com/go-delve/delve/service/api"
)

// memoryLimit is Delve's own for one look at memory, in bytes.
const memoryLimit = 1 << 16

// rpcIn is the argument of every method but Command. The methods' fields, which are Delve's (service/rpc2), agree where
// their names do, and a type a method is what makes Delve's own large.
type rpcIn struct {
	APIVersion  int
	NonBlocking bool
	Kill        bool
	All         bool

	Id                        int
	Name                      string
	Breakpoint                api.Breakpoint
	LocExpr                   string
	Loc                       string
	IncludeNonExecutableLines bool
	SubstitutePathRules       [][2]string
	Suspended                 bool

	Scope api.EvalScope
	Cfg   *api.LoadConfig
	Expr  string
	Type  api.WatchType

	Symbol, Value string

	Depth, Skip  int
	Full, Defers bool
	Opts         api.StacktraceOptions

	Filter      string
	FollowCalls int

	Start, Count int
	Filters      []api.ListGoroutinesFilter
	api.GoroutineGroupingOptions
	EvalScope *api.EvalScope

	ThreadID  int
	IncludeFp bool

	StartPC, EndPC uint64
	Flavour        api.AssemblyFlavour
	FnName         string
	Address        uint64
	Length         int
}

// result is what a method answers, by Delve's field names.
type result map[string]any

// call does a method. The process stands, but for those that wait for nobody.
func (r *rpcSession) call(method string, in *rpcIn) (any, error) {
	d, at := r.dbg, in.Scope
	cfg := in.Cfg
	if cfg == nil {
		cfg = &api.LoadConfig{}
	}
	load := *api.LoadConfigToProc(cfg)
	switch method {
	case "SetApiVersion":
		if in.APIVersion != 2 {
			return nil, errors.New("unknown API version")
		}
		return result{}, nil
	case "GetVersion":
		out := api.GetVersionOut{DelveVersion: version.DelveVersion.String(), APIVersion: 2}
		return &out, d.GetVersion(&out)
	case "ProcessPid":
		return result{"Pid": r.pid}, nil
	case "BuildID":
		return result{"BuildID": d.BuildID()}, nil
	case "LastModified":
		return result{"Time": d.LastModified()}, nil
	case "IsMulticlient", "AttachedToExistingProcess":
		return result{"IsMulticlient": true, "Answer": true}, nil
	case "Recorded":
		return result{"Recorded": false, "TraceDirectory": ""}, nil
	case "Restart":
		return nil, errors.New("the process is not this debugger's to start: a save starts it again, and fairlead run")
	case "Checkpoint", "ListCheckpoints", "ClearCheckpoint", "StopRecording":
		return nil, errors.New("the process is not recorded")
	case "Detach":
		if in.Kill {
			return nil, errors.New("the process is not this debugger's to end: use fairlead stop, or detach without killing")
		}
		return result{}, r.detach()
	case "State":
		return r.state(in.NonBlocking)
	case "Command": // halt: the others go another way
		return r.halt()
	case "GetEvents":
		return r.nextEvents(), nil
	case "CreateBreakpoint", "AmendBreakpoint", "GetBreakpoint", "ClearBreakpoint", "ToggleBreakpoint":
		return r.breakpoint(method, in)
	case "CreateWatchpoint":
		return d.CreateWatchpoint(at.GoroutineID, at.Frame, at.DeferredCall, in.Expr, in.Type)
	case "ListBreakpoints":
		return result{"Breakpoints": d.Breakpoints(in.All)}, nil
	case "CancelNext":
		return result{}, d.CancelNext()
	case "ListThreads", "GetThread", "ListTargets", "ListDynamicLibraries":
		return r.things(method, in)
	case "ListGoroutines":
		return r.goroutines(in)
	case "Stacktrace":
		return r.stacktrace(in)
	case "ListLocalVars":
		vars, err := d.LocalVariables(at.GoroutineID, at.Frame, at.DeferredCall, load)
		return result{"Variables": api.ConvertVars(vars)}, err
	case "ListFunctionArgs":
		vars, err := d.FunctionArguments(at.GoroutineID, at.Frame, at.DeferredCall, load)
		return result{"Args": api.ConvertVars(vars)}, err
	case "ListPackageVars":
		vars, err := d.PackageVariables(in.Filter, load)
		return result{"Variables": api.ConvertVars(vars)}, err
	case "Eval":
		if in.Cfg == nil {
			load = proc.LoadFullValue()
		}
		v, err := d.EvalVariableInScope(at.GoroutineID, at.Frame, at.DeferredCall, in.Expr, load)
		if err != nil {
			return nil, err
		}
		return result{"Variable": api.ConvertVar(v)}, nil
	case "Set":
		return result{}, d.SetVariableInScope(at.GoroutineID, at.Frame, at.DeferredCall, in.Symbol, in.Value)
	case "FindLocation":
		locs, expr, err := d.FindLocation(at.GoroutineID, at.Frame, at.DeferredCall, in.Loc, in.IncludeNonExecutableLines, in.SubstitutePathRules)
		return result{"Locations": locs, "SubstituteLocExpr": expr}, err
	case "FunctionReturnLocations":
		addrs, err := d.FunctionReturnLocations(in.FnName)
		return result{"Addrs": addrs}, err
	case "Disassemble":
		insts, err := d.Disassemble(at.GoroutineID, in.StartPC, in.EndPC)
		out := make(api.AsmInstructions, len(insts))
		for i := range insts {
			out[i] = api.ConvertAsmInstruction(insts[i], d.AsmInstructionText(&insts[i], proc.AssemblyFlavour(in.Flavour)))
		}
		return result{"Disassemble": out}, err
	case "ListRegisters":
		return r.registers(in)
	case "ListSources":
		l, err := d.Sources(in.Filter)
		return result{"Sources": l}, err
	case "ListFunctions":
		l, err := d.Functions(in.Filter, in.FollowCalls)
		return result{"Funcs": l}, err
	case "ListTypes":
		l, err := d.Types(in.Filter)
		return result{"Types": l}, err
	case "ExamineMemory":
		if in.Length < 0 || in.Length > memoryLimit {
			return nil, fmt.Errorf("len must be less than or equal to %d", memoryLimit)
		}
		b, err := d.ExamineMemory(in.Address, in.Length)
		return result{"Mem": b, "IsLittleEndian": true}, err
	}
	return nil, fmt.Errorf("rpc: can't find method RPCServer.%s", method)
}

func (r *rpcSession) breakpoint(method string, in *rpcIn) (any, error) {
	d := r.dbg
	switch method {
	case "CreateBreakpoint", "AmendBreakpoint":
		if err := api.ValidBreakpointName(in.Breakpoint.Name); err != nil {
			return nil, err
		}
		if method == "AmendBreakpoint" {
			return result{}, d.AmendBreakpoint(&in.Breakpoint)
		}
		b, err := d.CreateBreakpoint(&in.Breakpoint, in.LocExpr, in.SubstitutePathRules, in.Suspended)
		return result{"Breakpoint": b}, err
	}
	var b *api.Breakpoint
	if in.Name != "" {
		if b = d.FindBreakpointByName(in.Name); b == nil {
			return nil, fmt.Errorf("no breakpoint with name %s", in.Name)
		}
	} else if b = d.FindBreakpoint(in.Id); b == nil {
		return nil, fmt.Errorf("no breakpoint with id %d", in.Id)
	}
	var err error
	switch method {
	case "ClearBreakpoint":
		b, err = d.ClearBreakpoint(b)
	case "ToggleBreakpoint":
		b.Disabled = !b.Disabled
		err = d.AmendBreakpoint(b)
	}
	return result{"Breakpoint": b}, err
}

// things lists what the debugger must be locked for while it is put into words.
func (r *rpcSession) things(method string, in *rpcIn) (any, error) {
	d := r.dbg
	switch method {
	case "ListThreads":
		threads, err := d.Threads()
		if err != nil {
			return nil, err
		}
		_, unlock := d.LockTargetGroup()
		defer unlock()
		return result{"Threads": api.ConvertThreads(threads, d.ConvertThreadBreakpoint)}, nil
	case "GetThread":
		t, err := d.FindThread(in.Id)
		if err != nil {
			return nil, err
		}
		if t == nil {
			return nil, fmt.Errorf("no thread with id %d", in.Id)
		}
		_, unlock := d.LockTargetGroup()
		defer unlock()
		return result{"Thread": api.ConvertThread(t, d.ConvertThreadBreakpoint(t))}, nil
	case "ListTargets":
		group, unlock := d.LockTargetGroup()
		defer unlock()
		targets := []api.Target{}
		for _, t := range group.Targets() {
			if _, err := t.Valid(); err == nil {
				targets = append(targets, *api.ConvertTarget(t, d.ConvertThreadBreakpoint))
			}
		}
		return result{"Targets": targets}, nil
	}
	images := d.ListDynamicLibraries()
	_, unlock := d.LockTargetGroup()
	defer unlock()
	list := []api.Image{}
	for _, i := range images[1:] { // the first is the executable
		image := api.ConvertImage(i)
		image.Trimpath = i.Trimpath
		list = append(list, image)
	}
	return result{"List": list, "ExecutableTrimpath": images[0].Trimpath}, nil
}

func (r *rpcSession) goroutines(in *rpcIn) (any, error) {
	d := r.dbg
	var gs []*proc.G
	var next int
	var err error
	waiting := false
	for _, f := range in.Filters {
		if f.Kind != api.GoroutineWaitingOnChannel {
			continue
		}
		at := in.EvalScope
		if f.Negated || in.Count == 0 || at == nil {
			return nil, errors.New("a channel filter needs a count and a scope, and cannot be negated")
		}
		gs, err = d.ChanGoroutines(at.GoroutineID, at.Frame, at.DeferredCall, f.Arg, in.Start, in.Count)
		next = -1
		if len(gs) == in.Count {
			next = in.Start + len(gs)
		}
		waiting = true
		break
	}
	if !waiting {
		gs, next, err = d.Goroutines(in.Start, in.Count)
	}
	if err != nil {
		return nil, err
	}
	gs, groups, more := d.GroupGoroutines(d.FilterGoroutines(gs, in.Filters), &in.GoroutineGroupingOptions)
	group, unlock := d.LockTargetGroup()
	defer unlock()
	return result{"Goroutines": api.ConvertGoroutines(group.Selected, gs), "Nextg": next, "Groups": groups, "TooManyGroups": more}, nil
}

func (r *rpcSession) stacktrace(in *rpcIn) (any, error) {
	if in.Defers {
		in.Opts |= api.StacktraceReadDefers
	}
	raw, err := r.dbg.Stacktrace(int64(in.Id), in.Depth, in.Opts)
	if err != nil {
		return nil, err
	}
	raw = raw[min(max(in.Skip, 0), len(raw)):]
	var load *proc.LoadConfig // without one, no variables are read
	if in.Cfg != nil {
		load = api.LoadConfigToProc(in.Cfg)
	} else if in.Full {
		full := proc.LoadFullValue()
		load = &full
	}
	frames, err := r.dbg.ConvertStacktrace(raw, load)
	return result{"Locations": frames}, err
}

func (r *rpcSession) registers(in *rpcIn) (any, error) {
	var regs *op.DwarfRegisters
	var text proc.DwarfRegisterToStringFunc
	var err error
	if in.ThreadID != 0 {
		regs, text, err = r.dbg.ThreadRegisters(in.ThreadID)
	} else { // the zero scope is the current goroutine's first frame
		at := in.Scope
		if at == (api.EvalScope{}) {
			at.GoroutineID = -1
		}
		regs, text, err = r.dbg.ScopeRegisters(at.GoroutineID, at.Frame, at.DeferredCall)
	}
	if err != nil {
		return nil, err
	}
	out := api.Registers(api.ConvertRegisters(regs, text, in.IncludeFp))
	return result{"Registers": out.String(), "Regs": out}, nil
}

// nextEvents waits for an event, and takes what there is.
func (r *rpcSession) nextEvents() any {
	var out []api.Event
	select {
	case e := <-r.events:
		out = append(out, *api.ConvertEvent(e))
	case <-r.gone:
	}
	for {
		select {
		case e := <-r.events:
			out = append(out, *api.ConvertEvent(e))
		default:
			return result{"Events": out}
		}
	}
}
