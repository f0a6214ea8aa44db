        .text
        .globl ward_assembled_twice
        .type ward_assembled_twice, %function
ward_assembled_twice:
#if defined(__x86_64__)
        leal (%rdi,%rdi), %eax
        ret
#elif defined(__aarch64__)
        add w0, w0, w0
        ret
#else
#error "no code for this processor"
#endif
        .size ward_assembled_twice, . - ward_assembled_twice
        .section .note.GNU-stack, "", %progbits
