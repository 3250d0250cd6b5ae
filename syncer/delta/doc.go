// Package delta is what travels when a linked program changes a little. It owns the patch format, and knows nothing of
// files, connections, processes or executable formats: any content works, programs work well.
//
// # Why programs need this
//
// One line more in a Go program moves most of what the linker lays out after it, and every address that crosses the place
// changes: in calls and loads, in the tables of functions and types, in debug information. Hardly a 4 KB piece stays what
// it was, so schemes that send changed pieces (content-defined chunks, rsync) send 60 to 70 % of the program. But what
// changed is always the same: a 32-bit word grew by how far something moved.
//
// So a patch says which part of old each part of the content comes from (ops), at which distances words differ there
// (gaps), and by how much, in one byte a word that refers to what was guessed from the words before (syms, see model).
// Diff finds the parts with a hash table of old, made beforehand, and keeps to an alignment for as long as the differences
// are ones that it has met; see aligner.
//
// Neither side reads ELF. What it would tell is found without: alignments at the ends of sections, tables of words.
//
// # Numbers
//
// The fixture service, 27.4 MB with -s -w and 53.3 MB with -N -l and uncompressed DWARF, on 2 cores of a Xeon (Sapphire
// Rapids). "was" is what subtracting bytes and zstd make of it, in 5 to 10 times the time:
//
//	                                   patch               was       diff     apply
//	stripped  constant                 0.9 KB  0.003 %       3 KB    2.4 ms   2.2 ms
//	          longer constant         36 KB    0.13 %      101 KB    5        2.6
//	          line in package main    68 KB    0.25 %      204 KB   10        3.5
//	          line in the middle      79 KB    0.29 %      229 KB    9        3.3
//	          type in a deep package 209 KB    0.76 %      955 KB   22        5.1
//	          a std import           281 KB    1.03 %     1062 KB   38        5.8
//	debug     line in package main   296 KB    0.56 %      887 KB   24        8.6
//	          type in a deep package 362 KB    0.68 %     1382 KB   37        9.3
//	          a std import           678 KB    1.27 %     2595 KB   84       12
//	whole, zstd (stripped)             9.4 MB  34 %                  85       25
//
// NewIndex takes 38 ms (79 ms). Content that has nothing in common with old costs Diff up to three times the time of
// compressing it, and is not larger than that; another program costs ten times the time, and travels in 50 to 80 % of it.
//
// # What was tried
//
// Of all edits' sizes together, against what is here: zstd's fastest level 9 % more, its better level 5 % less for 15 %
// more time. Guesses without the tables of pages, from the differences met last, 10 to 20 % more. An index of every 16th
// byte 3 % more, of every 4th nothing less. Segments of 512 KB 3 % more, of 2 MB 2 % less.
//
// Left out: half of what remains for stripped programs says where in the code the words are. Both sides could find them by
// opcode in old, and say only which of them changed. That would halve such patches, for reading every byte of code on both
// sides, an estimated 5 ms each: a gain below 100 Mbit/s.
package delta
