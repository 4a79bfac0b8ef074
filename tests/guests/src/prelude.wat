;; What every guest has. Memory is handed out from the end of its data; what a call took is given back when its answer
;; was read. Places inside answers and faults ($answer_…) are written in front by the builder.

(func $realloc (export "cabi_realloc")
  (param $old i32) (param $old_size i32) (param $alignment i32) (param $size i32) (result i32)
  (local $at i32) (local $end i32) (local $missing i32)
  (local.set $at (i32.and
    (i32.add (global.get $heap) (i32.sub (local.get $alignment) (i32.const 1)))
    (i32.sub (i32.const 0) (local.get $alignment))))
  (local.set $end (i32.add (local.get $at) (local.get $size)))
  (if (i32.lt_u (local.get $end) (local.get $at)) (then unreachable))
  (block $fits
    (br_if $fits (i32.le_u (local.get $end) (i32.mul (memory.size) (i32.const 65536))))
    (local.set $missing (i32.sub (local.get $end) (i32.mul (memory.size) (i32.const 65536))))
    (br_if $fits (i32.ne (i32.const -1)
      (memory.grow (i32.add (i32.shr_u (local.get $missing) (i32.const 16)) (i32.const 1)))))
    unreachable)
  (global.set $heap (local.get $end))
  (memory.copy (local.get $at) (local.get $old) (select
    (local.get $old_size) (local.get $size) (i32.lt_u (local.get $old_size) (local.get $size))))
  (local.get $at))

(func $allocate (param $size i32) (result i32)
  (call $realloc (i32.const 0) (i32.const 0) (i32.const 8) (local.get $size)))

(func $give_back
  (global.set $heap (global.get $heap_start)))

;; result<json, fault>: the text.
(func $answer (param $at i32) (param $length i32) (result i32)
  (local $result i32)
  (local.set $result (call $allocate (global.get $answer_size)))
  (i32.store8 (local.get $result) (i32.const 0))
  (i32.store (i32.add (local.get $result) (global.get $answer_ok)) (local.get $at))
  (i32.store (i32.add (local.get $result) (global.get $answer_ok_length)) (local.get $length))
  (local.get $result))

;; result<_, fault>: agreed.
(func $agree (result i32)
  (call $answer (i32.const 0) (i32.const 0)))

;; Either result: a fault.
(func $refuse (param $code i32) (param $at i32) (param $length i32) (result i32)
  (local $result i32)
  (local.set $result (call $allocate (global.get $answer_size)))
  (memory.fill (local.get $result) (i32.const 0) (global.get $answer_size))
  (i32.store8 (local.get $result) (i32.const 1))
  (i32.store8 (i32.add (local.get $result) (global.get $answer_err_code)) (local.get $code))
  (i32.store (i32.add (local.get $result) (global.get $answer_err_message)) (local.get $at))
  (i32.store (i32.add (local.get $result) (global.get $answer_err_message_length)) (local.get $length))
  (local.get $result))

(func $same (param $one i32) (param $one_length i32) (param $other i32) (param $other_length i32) (result i32)
  (if (i32.ne (local.get $one_length) (local.get $other_length)) (then (return (i32.const 0))))
  (loop $next
    (if (i32.eqz (local.get $one_length)) (then (return (i32.const 1))))
    (local.set $one_length (i32.sub (local.get $one_length) (i32.const 1)))
    (br_if $next (i32.eq
      (i32.load8_u (i32.add (local.get $one) (local.get $one_length)))
      (i32.load8_u (i32.add (local.get $other) (local.get $one_length))))))
  (i32.const 0))

;; Whether a text is in another.
(func $holds (param $at i32) (param $length i32) (param $wanted i32) (param $wanted_length i32) (result i32)
  (loop $next
    (if (i32.lt_u (local.get $length) (local.get $wanted_length)) (then (return (i32.const 0))))
    (if (call $same (local.get $at) (local.get $wanted_length) (local.get $wanted) (local.get $wanted_length))
      (then (return (i32.const 1))))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (local.set $length (i32.sub (local.get $length) (i32.const 1)))
    (br $next))
  unreachable)

;; The first number in a text, 0 without one.
(func $number (param $at i32) (param $length i32) (result i64)
  (local $end i32) (local $digit i32) (local $value i64)
  (local.set $end (i32.add (local.get $at) (local.get $length)))
  (block $over (loop $next
    (br_if $over (i32.ge_u (local.get $at) (local.get $end)))
    (local.set $digit (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (if (i32.lt_u (local.get $digit) (i32.const 10))
      (then (local.set $value (i64.add
        (i64.mul (local.get $value) (i64.const 10)) (i64.extend_i32_u (local.get $digit)))))
      (else (br_if $over (i64.ne (local.get $value) (i64.const 0)))))
    (br $next)))
  (local.get $value))

;; A number as text.
(func $digits (param $value i64) (result i32 i32)
  (local $at i32) (local $end i32)
  (local.set $end (i32.add (call $allocate (i32.const 24)) (i32.const 24)))
  (local.set $at (local.get $end))
  (loop $next
    (local.set $at (i32.sub (local.get $at) (i32.const 1)))
    (i32.store8 (local.get $at) (i32.wrap_i64
      (i64.add (i64.const 48) (i64.rem_u (local.get $value) (i64.const 10)))))
    (local.set $value (i64.div_u (local.get $value) (i64.const 10)))
    (br_if $next (i64.ne (local.get $value) (i64.const 0))))
  (local.get $at)
  (i32.sub (local.get $end) (local.get $at)))

;; The end of the JSON text that begins here: a key, or a whole member.
(func $text_end (param $at i32) (param $ends_at_colon i32) (result i32)
  (local $depth i32) (local $character i32)
  (loop $next
    (local.set $character (i32.load8_u (local.get $at)))
    (if (i32.eq (local.get $character) (i32.const 34)) (then ;; a text in quotes
      (loop $inside
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (local.set $character (i32.load8_u (local.get $at)))
        (if (i32.eq (local.get $character) (i32.const 92)) (then
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $inside)))
        (br_if $inside (i32.ne (local.get $character) (i32.const 34))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next)))
    (if (i32.eqz (local.get $depth)) (then
      (if (i32.or
            (i32.or
              (i32.eq (local.get $character) (i32.const 44)) ;; a comma
              (i32.or (i32.eq (local.get $character) (i32.const 93)) (i32.eq (local.get $character) (i32.const 125))))
            (i32.and (local.get $ends_at_colon) (i32.eq (local.get $character) (i32.const 58))))
        (then (return (local.get $at))))))
    (local.set $depth (i32.add (local.get $depth) (i32.or
      (i32.eq (local.get $character) (i32.const 123)) (i32.eq (local.get $character) (i32.const 91)))))
    (local.set $depth (i32.sub (local.get $depth) (i32.or
      (i32.eq (local.get $character) (i32.const 125)) (i32.eq (local.get $character) (i32.const 93)))))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (br $next))
  unreachable)

;; Whether an object without spaces has a member with this key.
(func $has (param $object i32) (param $key i32) (param $key_length i32) (result i32)
  (local $key_end i32)
  (loop $next
    (local.set $object (i32.add (local.get $object) (i32.const 1))) ;; behind a brace or a comma
    (local.set $key_end (call $text_end (local.get $object) (i32.const 1)))
    (if (call $same
          (local.get $object) (i32.sub (local.get $key_end) (local.get $object))
          (local.get $key) (local.get $key_length))
      (then (return (i32.const 1))))
    (local.set $object (call $text_end (local.get $object) (i32.const 0)))
    (br_if $next (i32.eq (i32.load8_u (local.get $object)) (i32.const 44))))
  (i32.const 0))

(func $put (param $at i32) (param $length i32)
  (memory.copy (global.get $out) (local.get $at) (local.get $length))
  (global.set $out (i32.add (global.get $out) (local.get $length))))

;; Puts members of an object without spaces, each with a comma: those that another object lacks, or those that are
;; not null.
(func $put_members (param $object i32) (param $other i32)
  (local $key_end i32) (local $end i32) (local $wanted i32)
  (loop $next
    (local.set $object (i32.add (local.get $object) (i32.const 1)))
    (local.set $key_end (call $text_end (local.get $object) (i32.const 1)))
    (local.set $end (call $text_end (local.get $object) (i32.const 0)))
    (if (local.get $other)
      (then (local.set $wanted (i32.eqz (call $has (local.get $other)
        (local.get $object) (i32.sub (local.get $key_end) (local.get $object))))))
      (else (local.set $wanted (i32.ne
        (i32.load (i32.sub (local.get $end) (i32.const 4))) (i32.const 0x6c6c756e))))) ;; null
    (if (i32.and (local.get $wanted) (i32.ne (local.get $end) (local.get $object))) (then
      (call $put (local.get $object) (i32.sub (local.get $end) (local.get $object)))
      (i32.store8 (global.get $out) (i32.const 44))
      (global.set $out (i32.add (global.get $out) (i32.const 1)))))
    (local.set $object (local.get $end))
    (br_if $next (i32.eq (i32.load8_u (local.get $object)) (i32.const 44)))))

;; Merges the members of one object into another, both without spaces: null removes.
(func $merge (param $at i32) (param $length i32) (param $changes i32) (param $changes_length i32) (result i32 i32)
  (local $result i32)
  (local.set $result (call $allocate (i32.add
    (i32.const 8) (i32.add (local.get $length) (local.get $changes_length)))))
  (i32.store8 (local.get $result) (i32.const 123))
  (global.set $out (i32.add (local.get $result) (i32.const 1)))
  (call $put_members (local.get $at) (local.get $changes))
  (call $put_members (local.get $changes) (i32.const 0))
  (if (i32.eq (i32.load8_u (i32.sub (global.get $out) (i32.const 1))) (i32.const 44))
    (then (global.set $out (i32.sub (global.get $out) (i32.const 1)))))
  (i32.store8 (global.get $out) (i32.const 125))
  (local.get $result)
  (i32.sub (i32.add (global.get $out) (i32.const 1)) (local.get $result)))

;; Calls itself, deep, and not as its last act.
(func $recurse (param $depth i32) (result i32)
  (if (i32.eqz (local.get $depth)) (then (return (i32.const 0))))
  (i32.add (i32.const 1) (call $recurse (i32.sub (local.get $depth) (i32.const 1)))))

;; Steps of a generator of numbers: work that no compiler can leave out.
(func $burn (param $steps i64) (result i64)
  (local $value i64)
  (local.set $value (i64.const 1))
  (block $over (loop $next
    (br_if $over (i64.eqz (local.get $steps)))
    (local.set $value (i64.add
      (i64.mul (local.get $value) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))
    (local.set $steps (i64.sub (local.get $steps) (i64.const 1)))
    (br $next)))
  (i64.shr_u (local.get $value) (i64.const 33)))

;; The Fibonacci number of $n, the slow way. This is what LLVM makes of `if n < 2 { n } else { f(n - 1) + f(n - 2) }` for
;; every target: of the two calls the second becomes a loop. So it is the same work as the same source in native code.
(func $fibonacci (param $n i64) (result i64)
  (local $sum i64)
  (block $small
    (br_if $small (i64.lt_u (local.get $n) (i64.const 2)))
    (loop $next
      (local.set $sum (i64.add (call $fibonacci (i64.sub (local.get $n) (i64.const 1))) (local.get $sum)))
      (local.set $n (i64.sub (local.get $n) (i64.const 2)))
      (br_if $next (i64.gt_u (local.get $n) (i64.const 1)))))
  (i64.add (local.get $n) (local.get $sum)))
