//! Integers of any size, by libgmp: the few calls that finding common factors
//! takes. The names are those behind the macros of gmp.h, which its binary
//! interface keeps.

use std::ffi::{c_int, c_ulong, c_void};
use std::mem::MaybeUninit;

/// `__mpz_struct`: libgmp alone looks into it. It may be moved, as it does not
/// point to itself.
#[repr(C)]
struct Raw {
    allocated: c_int,
    size: c_int,
    limbs: *mut c_void,
}

unsafe extern "C" {
    fn __gmpz_init(value: *mut Raw);
    fn __gmpz_clear(value: *mut Raw);
    fn __gmpz_import(
        value: *mut Raw,
        count: usize,
        order: c_int,
        size: usize,
        endian: c_int,
        nails: usize,
        data: *const c_void,
    );
    fn __gmpz_mul(product: *mut Raw, one: *const Raw, other: *const Raw);
    fn __gmpz_tdiv_r(rest: *mut Raw, one: *const Raw, other: *const Raw);
    fn __gmpz_tdiv_q(quotient: *mut Raw, one: *const Raw, other: *const Raw);
    fn __gmpz_gcd(divisor: *mut Raw, one: *const Raw, other: *const Raw);
    fn __gmpz_cmp_ui(one: *const Raw, other: c_ulong) -> c_int;
}

/// A natural number. libgmp ends the process where memory runs out.
pub struct Natural(Raw);

/// A call that sets its first argument from two others.
type Operation = unsafe extern "C" fn(*mut Raw, *const Raw, *const Raw);

impl Natural {
    fn zero() -> Natural {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the call writes all of the structure that it is given.
        unsafe { __gmpz_init(raw.as_mut_ptr()) };
        // SAFETY: written by the call above.
        Natural(unsafe { raw.assume_init() })
    }

    /// The number with these bytes, the highest first.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Natural {
        let mut number = Natural::zero();
        let data = bytes.as_ptr().cast();
        // SAFETY: the number was initialised; `data` holds that many items of one
        // byte each, which the call copies.
        unsafe { __gmpz_import(&raw mut number.0, bytes.len(), 1, 1, 0, 0, data) };
        number
    }

    fn operate(&self, operation: Operation, other: &Natural) -> Natural {
        let mut result = Natural::zero();
        // SAFETY: all three were initialised, and none is two of them at once.
        unsafe { operation(&raw mut result.0, &raw const self.0, &raw const other.0) };
        result
    }

    /// The product.
    #[must_use]
    pub fn times(&self, other: &Natural) -> Natural {
        self.operate(__gmpz_mul, other)
    }

    /// The rest of a division; `None` by zero.
    #[must_use]
    pub fn modulo(&self, other: &Natural) -> Option<Natural> {
        let divides = other.is_more_than(0);
        divides.then(|| self.operate(__gmpz_tdiv_r, other))
    }

    /// The quotient, rounded down; `None` by zero.
    #[must_use]
    pub fn over(&self, other: &Natural) -> Option<Natural> {
        let divides = other.is_more_than(0);
        divides.then(|| self.operate(__gmpz_tdiv_q, other))
    }

    /// The greatest common divisor.
    #[must_use]
    pub fn common_divisor(&self, other: &Natural) -> Natural {
        self.operate(__gmpz_gcd, other)
    }

    /// Whether it is more than a small number.
    #[must_use]
    pub fn is_more_than(&self, other: u32) -> bool {
        // SAFETY: the number was initialised; the call only reads it.
        unsafe { __gmpz_cmp_ui(&raw const self.0, other.into()) > 0 }
    }
}

impl Drop for Natural {
    fn drop(&mut self) {
        // SAFETY: initialised, and cleared only here.
        unsafe { __gmpz_clear(&raw mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_arithmetic_says() {
        let number = |value: u64| Natural::from_bytes(&value.to_be_bytes());
        let is =
            |one: &Natural, value: u32| one.is_more_than(value - 1) && !one.is_more_than(value);
        assert!(is(&number(6).times(&number(7)), 42));
        assert!(is(&number(143).common_divisor(&number(221)), 13));
        assert!(is(&number(43).over(&number(6)).expect("not by zero"), 7));
        assert!(is(&number(43).modulo(&number(40)).expect("not by zero"), 3));
        assert!(number(1).modulo(&number(0)).is_none() && number(1).over(&number(0)).is_none());
        assert!(Natural::from_bytes(&[1, 0, 0, 0, 0, 0, 0, 0, 0]).is_more_than(u32::MAX));
        assert!(!Natural::from_bytes(&[]).is_more_than(0));
    }
}
