package delta

// model guesses the difference of a field from what the fields before it had. Diff and Apply run the same one, a fresh
// one for each segment; what they need not say travels in one byte that is nearly always the same.
//
// A field that changes in a linked binary is nearly always an address, and its difference is how far the addressed thing
// moved. Neighbours move together, so the difference is looked up by the page of the address: the field's value as it is
// (pointers, offsets into a table), or with the field's own position added (calls, jumps and loads relative to the
// program counter).
type model struct {
	relative [1 << relativeBits]uint32
	absolute [1 << absoluteBits]uint32
	slots    [256 - symSlot]uint32
	next     uint8 // the slot that the next unforeseen difference goes into
}

// Page sizes of 2^16 and 2^12 were best of 2^10 to 2^20 over all edits: smaller pages are met for the first time too
// often, larger ones straddle what moved differently.
const (
	relativeShift, relativeBits = 16, 10
	absoluteShift, absoluteBits = 12, 12
)

const (
	symRelative = iota
	symAbsolute
	symNew  // the difference is in the diffs stream
	symSlot // this and above: the difference is in a slot
)

// keys returns where in the tables a field belongs; pos is its position in the new content and v its old value.
func keys(pos int64, v uint32) (relative, absolute uint32) {
	return (uint32(pos) + v) >> relativeShift & (1<<relativeBits - 1), v >> absoluteShift & (1<<absoluteBits - 1)
}

// keep puts an unforeseen difference into a slot.
func (m *model) keep(diff uint32) (slot uint8) {
	slot = m.next
	m.slots[slot] = diff
	m.next = uint8((int(slot) + 1) % len(m.slots))
	return slot
}
