/* Unigram against SentencePiece: two small vocabularies and what SentencePiece 0.1.97 makes of some texts, found once
 * when this file was written; and files made to be wrong. The vocabularies were trained on public-domain books with a
 * normaliser of thirteen rules (full-width letters, ligatures, a soft hyphen that vanishes, ...). */
#include "model/vocab_files.h"

#include "model/gguf_write.h"

typedef struct unit { /* of the normaliser's trie; those left out are 0 */
    uint32_t at, value;
} unit;

typedef struct piece { /* text NULL: here stand the tokens of the 256 bytes */
    const char *text;
    float       score;
    int32_t     kind;
} piece;

typedef struct expected {
    const char *text;
    size_t      count;
    int32_t     ids[48];
} expected;

/* clang-format off */
static const unit plain_units[] = {
    {0, 0x2000}, {1, 0x909}, {2, 0x50a}, {3, 0x80000001}, {4, 0x542}, {5, 0x8000000d}, {6, 0x80000010}, {7, 0x238cc},
    {8, 0x581}, {9, 0x8000001d}, {10, 0x80000000}, {11, 0x28480}, {12, 0x5a6}, {13, 0x80000003}, {14, 0x5a0},
    {15, 0x80000007}, {16, 0x4da0}, {17, 0xd81}, {18, 0x80000014}, {19, 0x1dba}, {20, 0x80000017}, {21, 0x9a1},
    {22, 0x39a2}, {23, 0x8000000b}, {24, 0x80000009}, {25, 0x18}, {26, 0x2d091}, {27, 0x1a}, {28, 0x1d},
    {29, 0x5dad}, {30, 0x1f}, {31, 0x1e}, {32, 0x2c0ac}, {33, 0x20}, {34, 0x23}, {35, 0x22}, {36, 0x25}, {37, 0x24},
    {38, 0x27}, {39, 0x26}, {40, 0x29}, {41, 0x28}, {42, 0x2b}, {43, 0x2a}, {44, 0x2d}, {45, 0x2c}, {46, 0x2f},
    {47, 0x2e}, {48, 0x210bc}, {49, 0x30}, {50, 0x33}, {51, 0x32}, {52, 0x35}, {53, 0x34}, {54, 0x37}, {55, 0x36},
    {56, 0x39}, {57, 0x38}, {58, 0x3b}, {59, 0x248b7}, {60, 0x3d}, {61, 0x3c}, {62, 0x3f}, {63, 0x3e}, {64, 0x41},
    {65, 0x40}, {66, 0x43}, {67, 0x42}, {68, 0x45}, {69, 0x44}, {70, 0x10143}, {71, 0x46}, {72, 0x49}, {73, 0x3c41},
    {74, 0x4b}, {75, 0x4a}, {76, 0x4d}, {77, 0x4c}, {78, 0x4f}, {79, 0x4e}, {80, 0x51}, {81, 0x50}, {82, 0x53},
    {83, 0x52}, {84, 0x55}, {85, 0x54}, {86, 0x57}, {87, 0x56}, {88, 0x59}, {89, 0x58}, {90, 0x5b}, {91, 0x5a},
    {92, 0x5d}, {93, 0x5c}, {94, 0x5f}, {95, 0x5e}, {96, 0x61}, {97, 0x60}, {98, 0x63}, {99, 0x62}, {100, 0x65},
    {101, 0x64}, {102, 0x67}, {103, 0x66}, {104, 0x69}, {105, 0x68}, {106, 0x6b}, {107, 0x6a}, {108, 0x6d},
    {109, 0x29865}, {110, 0x6f}, {111, 0x6e}, {112, 0x71}, {113, 0x70}, {114, 0x73}, {115, 0x72}, {116, 0x75},
    {117, 0x74}, {118, 0x77}, {119, 0x76}, {120, 0x79}, {121, 0x78}, {122, 0x7b}, {123, 0x7a}, {124, 0x7d},
    {125, 0x7c}, {126, 0x7f}, {127, 0x7e}, {128, 0x81}, {129, 0x80}, {130, 0x83}, {131, 0x82}, {132, 0x85},
    {133, 0x84}, {134, 0x87}, {135, 0x86}, {136, 0x89}, {137, 0x88}, {138, 0x8b}, {139, 0x8a}, {140, 0x8d},
    {141, 0x8c}, {142, 0x8f}, {143, 0x8e}, {144, 0x91}, {145, 0x90}, {146, 0x93}, {147, 0x92}, {148, 0x95},
    {149, 0x94}, {150, 0x97}, {151, 0x96}, {152, 0x99}, {153, 0x98}, {154, 0x9b}, {155, 0x9a}, {156, 0x9d},
    {157, 0x9c}, {158, 0x9f}, {159, 0x9e}, {160, 0xa1}, {161, 0xa0}, {162, 0xa3}, {163, 0xa2}, {164, 0xa5},
    {165, 0xa4}, {166, 0xa7}, {167, 0xa6}, {168, 0xa9}, {169, 0xa8}, {170, 0xab}, {171, 0xaa}, {172, 0xad},
    {173, 0xac}, {174, 0xaf}, {175, 0xae}, {176, 0xb1}, {177, 0xb0}, {178, 0xb3}, {179, 0xb2}, {180, 0xb5},
    {181, 0xb4}, {182, 0xb7}, {183, 0xb6}, {184, 0xb9}, {185, 0xb8}, {186, 0xbb}, {187, 0xba}, {188, 0xbd},
    {189, 0xbc}, {190, 0xbf}, {191, 0xbe}, {192, 0xc1}, {193, 0xc0}, {194, 0xc3}, {195, 0xc2}, {196, 0xc5},
    {197, 0xc4}, {198, 0xc7}, {199, 0xc6}, {200, 0xc9}, {201, 0xc8}, {202, 0x1e8c2}, {203, 0xca}, {204, 0xcd},
    {205, 0xcc}, {206, 0xcf}, {207, 0xce}, {208, 0xd1}, {209, 0xd0}, {210, 0xd3}, {211, 0xd2}, {212, 0xd5},
    {213, 0xd4}, {214, 0xd7}, {215, 0xd6}, {216, 0xd9}, {217, 0xd8}, {218, 0xdb}, {219, 0xda}, {220, 0xdd},
    {221, 0xdc}, {222, 0xdf}, {223, 0xde}, {224, 0xe1}, {225, 0xe0}, {226, 0xe3}, {227, 0xe2}, {228, 0xe5},
    {229, 0xe4}, {230, 0xe7}, {231, 0x1acef}, {232, 0xe9}, {233, 0xe8}, {234, 0x184e2}, {235, 0xea}, {236, 0xed},
    {237, 0xec}, {238, 0xef}, {239, 0xee}, {240, 0xf1}, {241, 0xf0}, {242, 0xf3}, {243, 0xf2}, {244, 0xf5},
    {245, 0xf4}, {246, 0xf7}, {247, 0xf6}, {248, 0xf9}, {249, 0xf8}, {250, 0xfb}, {251, 0xfa}, {252, 0xfd},
    {253, 0xfc}, {254, 0xff}, {255, 0xfe}};
enum { PLAIN_UNITS = 256 };
static const char plain_texts[] = "\000 \000...\0001\000B\000a\000ab\000abc\000fi\000s a w\000\303\251";
static const piece plain_pieces[] = {
    {"<unk>", 0.0f, 2}, {"<s>", 0.0f, 3}, {"</s>", 0.0f, 3}, {"\342\226\201", -2.453242064f, 1},
    {"e", -3.048259735f, 1}, {"s", -3.400561571f, 1}, {"o", -3.40718317f, 1}, {"t", -3.422951221f, 1},
    {"\342\226\201the", -3.619833231f, 1}, {"d", -3.768064737f, 1}, {"l", -3.811706543f, 1}, {",", -3.829890966f, 1},
    {"a", -3.835724592f, 1}, {"h", -4.134560108f, 1}, {"m", -4.136716366f, 1}, {"i", -4.18046093f, 1},
    {"ed", -4.214691162f, 1}, {".", -4.249900341f, 1}, {"n", -4.254753113f, 1}, {"u", -4.258155823f, 1},
    {"r", -4.264304161f, 1}, {"p", -4.28513813f, 1}, {"g", -4.286146641f, 1}, {"\342\226\201and", -4.327245712f, 1},
    {"\342\226\201s", -4.384659767f, 1}, {"y", -4.391993999f, 1}, {"k", -4.437851906f, 1},
    {"\342\226\201a", -4.480985165f, 1}, {"er", -4.523855686f, 1}, {"ing", -4.53040123f, 1},
    {"\342\226\201to", -4.587567329f, 1}, {"an", -4.704156399f, 1}, {"ar", -4.732019901f, 1},
    {"\342\226\201of", -4.745466232f, 1}, {"c", -4.774441242f, 1}, {"\342\226\201w", -4.814270496f, 1},
    {"\342\226\201f", -4.912069798f, 1}, {"en", -4.933694363f, 1}, {"f", -4.940054417f, 1},
    {"\342\226\201b", -4.953206062f, 1}, {"\342\226\201m", -4.980168343f, 1}, {"w", -4.985383511f, 1},
    {"re", -4.991483688f, 1}, {"in", -5.003185749f, 1}, {"\342\226\201p", -5.012099266f, 1},
    {"\342\226\201was", -5.014070511f, 1}, {"st", -5.041577816f, 1}, {"at", -5.071566582f, 1},
    {"\342\226\201in", -5.132359505f, 1}, {"or", -5.157777786f, 1}, {"ly", -5.192286015f, 1},
    {"'", -5.197705746f, 1}, {"ve", -5.225064754f, 1}, {"\342\226\201he", -5.27789259f, 1}, {"on", -5.305130005f, 1},
    {"\342\226\201be", -5.311747551f, 1}, {"b", -5.324936867f, 1}, {"ch", -5.396044254f, 1},
    {"ow", -5.401103973f, 1}, {"le", -5.442827702f, 1}, {"es", -5.445134163f, 1}, {"ir", -5.452764511f, 1},
    {"\342\226\201th", -5.458759785f, 1}, {"\342\226\201it", -5.459096432f, 1}, {"\342\226\201l", -5.485554218f, 1},
    {"al", -5.496566296f, 1}, {"v", -5.52009964f, 1}, {"\342\226\201her", -5.527266502f, 1},
    {"\342\226\201on", -5.536633015f, 1}, {"\342\226\201that", -5.549759865f, 1},
    {"\342\226\201she", -5.558811665f, 1}, {"is", -5.573581696f, 1}, {"it", -5.597563267f, 1},
    {"ur", -5.598416805f, 1}, {"il", -5.628250122f, 1}, {"\342\226\201had", -5.646746159f, 1},
    {"-", -5.673408508f, 1}, {"\342\226\201The", -5.759241104f, 1}, {"us", -5.769398689f, 1},
    {"\342\226\201with", -5.780459404f, 1}, {"\342\226\201ha", -5.82088995f, 1}, {"ne", -5.834694386f, 1},
    {"\342\226\201co", -5.836216927f, 1}, {"ce", -5.83994627f, 1}, {"\342\226\201t", -5.851863861f, 1},
    {";", -5.857031822f, 1}, {"\342\226\201his", -5.861533165f, 1}, {"un", -5.868817806f, 1},
    {"ent", -5.875604153f, 1}, {"ad", -5.899590492f, 1}, {"\342\226\201for", -5.900835991f, 1},
    {"ac", -5.930354118f, 1}, {"\342\226\201as", -5.938244343f, 1}, {"\342\226\201r", -5.945516109f, 1},
    {"ay", -5.959317684f, 1}, {"ri", -6.012853146f, 1}, {"\342\226\201ca", -6.042555332f, 1},
    {"ight", -6.088469982f, 1}, {"\342\226\201not", -6.106443882f, 1}, {"A", -6.107167244f, 1},
    {"\342\226\201they", -6.147977352f, 1}, {"\342\226\201were", -6.150613785f, 1},
    {"\342\226\201so", -6.161746025f, 1}, {"ther", -6.162260056f, 1}, {"ic", -6.164446831f, 1},
    {"H", -6.202428818f, 1}, {"\342\226\201but", -6.208743095f, 1}, {"\342\226\201I", -6.221385479f, 1},
    {"\342\226\201re", -6.236610889f, 1}, {"\342\226\201di", -6.238819122f, 1}, {"\342\226\201'", -6.256943226f, 1},
    {"W", -6.278460503f, 1}, {"T", -6.282067299f, 1}, {"\342\226\201up", -6.291043282f, 1},
    {"ion", -6.300358295f, 1}, {"\342\226\201no", -6.342935085f, 1}, {"S", -6.355257988f, 1},
    {"\342\226\201gr", -6.355778217f, 1}, {"\342\226\201all", -6.368036747f, 1}, {"ome", -6.412613869f, 1},
    {"\342\226\201at", -6.439287186f, 1}, {"\342\226\201him", -6.447657585f, 1},
    {"\342\226\201go", -6.448362827f, 1}, {"M", -6.459403992f, 1}, {"ound", -6.475408554f, 1},
    {"z", -6.532645702f, 1}, {"\342\226\201ho", -6.540743828f, 1}, {"\342\226\201you", -6.542602539f, 1},
    {"\342\226\201out", -6.556437492f, 1}, {"\342\226\201do", -6.60985899f, 1}, {"j", -6.649116516f, 1},
    {"\342\226\201said", -6.65101862f, 1}, {"\342\226\201from", -6.656451702f, 1},
    {"\342\226\201little", -6.667451382f, 1}, {"!", -6.684239388f, 1}, {"ell", -6.684934139f, 1},
    {"\342\226\201de", -6.692544937f, 1}, {"O", -6.701317787f, 1}, {"\342\226\201could", -6.768621445f, 1},
    {"ful", -6.777628899f, 1}, {":", -6.785115242f, 1}, {"\342\226\201Anne", -6.808282852f, 1},
    {"\342\226\201who", -6.829681396f, 1}, {"\342\226\201which", -6.842961311f, 1},
    {"\342\226\201see", -6.871774673f, 1}, {"E", -6.890360355f, 1}, {"C", -6.894994259f, 1},
    {"\342\226\201cr", -6.909055233f, 1}, {"\342\226\201cl", -6.911191463f, 1}, {"\342\226\201dr", -6.921325684f, 1},
    {"\342\226\201when", -6.943718433f, 1}, {"\342\226\201would", -6.962249756f, 1}, {"D", -6.964735031f, 1},
    {"into", -6.999166965f, 1}, {"\342\226\201ex", -7.006064415f, 1}, {"I", -7.01804018f, 1},
    {"P", -7.029023647f, 1}, {"B", -7.094852924f, 1}, {"x", -7.208147526f, 1}, {"q", -8.454587936f, 1}};
static const expected plain_ids[] = {
{"Hello world", 8, {3, 105, 135, 6, 35, 49, 10, 9}},
{"the cat and  the dog ", 7, {8, 96, 7, 23, 8, 129, 22}},
{"  two  spaces  ", 7, {84, 41, 6, 24, 21, 91, 60}},
{"\011A\011B\012", 4, {3, 99, 3, 157}},
{"caf\303\251 cafe\314\201", 6, {96, 38, 0, 96, 38, 0}},
{"\342\221\240\342\221\241\342\221\242", 2, {3, 0}},
{"\357\274\241\357\274\242", 2, {27, 157}},
{"ABCABABB", 8, {27, 56, 34, 12, 56, 12, 56, 157}},
{"\357\267\272", 3, {24, 27, 35}},
{"soft\302\255hy\302\255phen", 8, {102, 38, 7, 13, 25, 21, 13, 37}},
{"\357\254\201nd\342\200\246", 6, {36, 43, 9, 17, 17, 17}},
{"\346\227\245\346\234\254\350\252\236 x \346\227\245", 6, {3, 0, 3, 158, 3, 0}},
{"\342\226\201mark\342\226\201", 4, {3, 40, 32, 26}},
{"a", 1, {27}},
{"\303\251", 2, {3, 0}},
{"\077\077\077\077", 2, {3, 0}},
{"1 2 3", 6, {3, 0, 3, 0, 3, 0}},
{"", 0, {0}},
    {"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 41, {3, 158, 158, 158, 158, 158, 158, 158, 158, 158, 158, 158, 158,
    158, 158, 158, 158, 158, 158, 158, 158, 158, 158, 158, 158, 158, 158, 158, 158, 158, 158, 158, 158, 158, 158,
    158, 158, 158, 158, 158, 158}},
{"one\302\240two", 5, {68, 4, 84, 41, 6}},
{"\302\255", 0, {0}},
{"the\360\237\230\200the", 5, {8, 0, 7, 13, 4}},
{"e\314\201\302\255\342\200\246", 5, {3, 0, 17, 17, 17}},
};
static const unit bytes_units[] = {
    {0, 0x2000}, {1, 0x909}, {2, 0x50a}, {3, 0x80000001}, {4, 0x542}, {5, 0x8000000d}, {6, 0x80000010}, {7, 0x238cc},
    {8, 0x581}, {9, 0x8000001d}, {10, 0x80000000}, {11, 0x28480}, {12, 0x5a6}, {13, 0x80000003}, {14, 0x5a0},
    {15, 0x80000007}, {16, 0x4da0}, {17, 0xd81}, {18, 0x80000014}, {19, 0x1dba}, {20, 0x80000017}, {21, 0x9a1},
    {22, 0x39a2}, {23, 0x8000000b}, {24, 0x80000009}, {25, 0x18}, {26, 0x2d091}, {27, 0x1a}, {28, 0x1d},
    {29, 0x5dad}, {30, 0x1f}, {31, 0x1e}, {32, 0x2c0ac}, {33, 0x20}, {34, 0x23}, {35, 0x22}, {36, 0x25}, {37, 0x24},
    {38, 0x27}, {39, 0x26}, {40, 0x29}, {41, 0x28}, {42, 0x2b}, {43, 0x2a}, {44, 0x2d}, {45, 0x2c}, {46, 0x2f},
    {47, 0x2e}, {48, 0x210bc}, {49, 0x30}, {50, 0x33}, {51, 0x32}, {52, 0x35}, {53, 0x34}, {54, 0x37}, {55, 0x36},
    {56, 0x39}, {57, 0x38}, {58, 0x3b}, {59, 0x248b7}, {60, 0x3d}, {61, 0x3c}, {62, 0x3f}, {63, 0x3e}, {64, 0x41},
    {65, 0x40}, {66, 0x43}, {67, 0x42}, {68, 0x45}, {69, 0x44}, {70, 0x10143}, {71, 0x46}, {72, 0x49}, {73, 0x3c41},
    {74, 0x4b}, {75, 0x4a}, {76, 0x4d}, {77, 0x4c}, {78, 0x4f}, {79, 0x4e}, {80, 0x51}, {81, 0x50}, {82, 0x53},
    {83, 0x52}, {84, 0x55}, {85, 0x54}, {86, 0x57}, {87, 0x56}, {88, 0x59}, {89, 0x58}, {90, 0x5b}, {91, 0x5a},
    {92, 0x5d}, {93, 0x5c}, {94, 0x5f}, {95, 0x5e}, {96, 0x61}, {97, 0x60}, {98, 0x63}, {99, 0x62}, {100, 0x65},
    {101, 0x64}, {102, 0x67}, {103, 0x66}, {104, 0x69}, {105, 0x68}, {106, 0x6b}, {107, 0x6a}, {108, 0x6d},
    {109, 0x29865}, {110, 0x6f}, {111, 0x6e}, {112, 0x71}, {113, 0x70}, {114, 0x73}, {115, 0x72}, {116, 0x75},
    {117, 0x74}, {118, 0x77}, {119, 0x76}, {120, 0x79}, {121, 0x78}, {122, 0x7b}, {123, 0x7a}, {124, 0x7d},
    {125, 0x7c}, {126, 0x7f}, {127, 0x7e}, {128, 0x81}, {129, 0x80}, {130, 0x83}, {131, 0x82}, {132, 0x85},
    {133, 0x84}, {134, 0x87}, {135, 0x86}, {136, 0x89}, {137, 0x88}, {138, 0x8b}, {139, 0x8a}, {140, 0x8d},
    {141, 0x8c}, {142, 0x8f}, {143, 0x8e}, {144, 0x91}, {145, 0x90}, {146, 0x93}, {147, 0x92}, {148, 0x95},
    {149, 0x94}, {150, 0x97}, {151, 0x96}, {152, 0x99}, {153, 0x98}, {154, 0x9b}, {155, 0x9a}, {156, 0x9d},
    {157, 0x9c}, {158, 0x9f}, {159, 0x9e}, {160, 0xa1}, {161, 0xa0}, {162, 0xa3}, {163, 0xa2}, {164, 0xa5},
    {165, 0xa4}, {166, 0xa7}, {167, 0xa6}, {168, 0xa9}, {169, 0xa8}, {170, 0xab}, {171, 0xaa}, {172, 0xad},
    {173, 0xac}, {174, 0xaf}, {175, 0xae}, {176, 0xb1}, {177, 0xb0}, {178, 0xb3}, {179, 0xb2}, {180, 0xb5},
    {181, 0xb4}, {182, 0xb7}, {183, 0xb6}, {184, 0xb9}, {185, 0xb8}, {186, 0xbb}, {187, 0xba}, {188, 0xbd},
    {189, 0xbc}, {190, 0xbf}, {191, 0xbe}, {192, 0xc1}, {193, 0xc0}, {194, 0xc3}, {195, 0xc2}, {196, 0xc5},
    {197, 0xc4}, {198, 0xc7}, {199, 0xc6}, {200, 0xc9}, {201, 0xc8}, {202, 0x1e8c2}, {203, 0xca}, {204, 0xcd},
    {205, 0xcc}, {206, 0xcf}, {207, 0xce}, {208, 0xd1}, {209, 0xd0}, {210, 0xd3}, {211, 0xd2}, {212, 0xd5},
    {213, 0xd4}, {214, 0xd7}, {215, 0xd6}, {216, 0xd9}, {217, 0xd8}, {218, 0xdb}, {219, 0xda}, {220, 0xdd},
    {221, 0xdc}, {222, 0xdf}, {223, 0xde}, {224, 0xe1}, {225, 0xe0}, {226, 0xe3}, {227, 0xe2}, {228, 0xe5},
    {229, 0xe4}, {230, 0xe7}, {231, 0x1acef}, {232, 0xe9}, {233, 0xe8}, {234, 0x184e2}, {235, 0xea}, {236, 0xed},
    {237, 0xec}, {238, 0xef}, {239, 0xee}, {240, 0xf1}, {241, 0xf0}, {242, 0xf3}, {243, 0xf2}, {244, 0xf5},
    {245, 0xf4}, {246, 0xf7}, {247, 0xf6}, {248, 0xf9}, {249, 0xf8}, {250, 0xfb}, {251, 0xfa}, {252, 0xfd},
    {253, 0xfc}, {254, 0xff}, {255, 0xfe}};
enum { BYTES_UNITS = 256 };
static const char bytes_texts[] = "\000 \000...\0001\000B\000a\000ab\000abc\000fi\000s a w\000\303\251";
static const piece bytes_pieces[] = {
    {"<unk>", 0.0f, 2}, {"<s>", 0.0f, 3}, {"</s>", 0.0f, 3}, {"<x>", 0.0f, 4}, {NULL, 0.0f, 6},
    {"\342\226\201", -2.354698658f, 1}, {"s", -3.209685802f, 1}, {"\342\226\201the", -3.495616913f, 1},
    {",", -3.59822154f, 1}, {"e", -3.75094533f, 1}, {".", -3.987058163f, 1}, {"ed", -4.041070461f, 1},
    {"\342\226\201and", -4.072789192f, 1}, {"t", -4.133178711f, 1}, {"p", -4.303063869f, 1},
    {"\342\226\201to", -4.348456383f, 1}, {"\342\226\201a", -4.352026939f, 1}, {"o", -4.363197803f, 1},
    {"r", -4.371341228f, 1}, {"ing", -4.374155998f, 1}, {"d", -4.390290737f, 1}, {"n", -4.473713398f, 1},
    {"\342\226\201of", -4.545799732f, 1}, {"a", -4.60731554f, 1}, {"l", -4.691963196f, 1}, {"y", -4.737397671f, 1},
    {"\342\226\201was", -4.751954556f, 1}, {"\342\226\201in", -4.854826927f, 1}, {"er", -4.868741035f, 1},
    {"u", -4.884592533f, 1}, {"m", -4.920758247f, 1}, {"re", -4.926116467f, 1}, {"ly", -4.946801186f, 1},
    {"h", -5.061794758f, 1}, {"'", -5.064072609f, 1}, {"\342\226\201p", -5.067121029f, 1},
    {"\342\226\201f", -5.122977734f, 1}, {"in", -5.135475636f, 1}, {"\342\226\201w", -5.166437149f, 1},
    {"\342\226\201it", -5.182378769f, 1}, {"g", -5.187432289f, 1}, {"st", -5.192324162f, 1}, {"k", -5.213497162f, 1},
    {"c", -5.216060638f, 1}, {"ar", -5.235557079f, 1}, {"or", -5.245716095f, 1},
    {"\342\226\201he", -5.253440857f, 1}, {"\342\226\201her", -5.260575771f, 1},
    {"\342\226\201that", -5.280217171f, 1}, {"b", -5.305669308f, 1}, {"\342\226\201she", -5.306457043f, 1},
    {"\342\226\201had", -5.368885994f, 1}, {"i", -5.40891695f, 1}, {"le", -5.423221588f, 1},
    {"en", -5.426363468f, 1}, {"\342\226\201be", -5.453269005f, 1}, {"al", -5.453393459f, 1},
    {"\342\226\201g", -5.520022869f, 1}, {"at", -5.525831699f, 1}, {"f", -5.527871609f, 1}, {"it", -5.540219307f, 1},
    {"\342\226\201t", -5.543567181f, 1}, {"ow", -5.579234123f, 1}, {"on", -5.583434582f, 1}, {";", -5.594189644f, 1},
    {"\342\226\201his", -5.59697628f, 1}, {"\342\226\201with", -5.599980354f, 1}, {"an", -5.619265556f, 1},
    {"\342\226\201for", -5.628743172f, 1}, {"\342\226\201The", -5.658416748f, 1},
    {"\342\226\201so", -5.687338829f, 1}, {"\342\226\201b", -5.714122295f, 1}, {"v", -5.715904236f, 1},
    {"\342\226\201as", -5.736097813f, 1}, {"ch", -5.738646984f, 1}, {"\342\226\201on", -5.749216557f, 1},
    {"w", -5.752485275f, 1}, {"\342\226\201l", -5.758222103f, 1}, {"ir", -5.81805563f, 1},
    {"\342\226\201they", -5.826622009f, 1}, {"un", -5.832038403f, 1}, {"es", -5.858453274f, 1},
    {"-", -5.869616032f, 1}, {"\342\226\201were", -5.884972572f, 1}, {"\342\226\201at", -5.918170929f, 1},
    {"ur", -5.91996336f, 1}, {"\342\226\201not", -5.930849552f, 1}, {"se", -5.938512325f, 1},
    {"\342\226\201but", -5.947515965f, 1}, {"ad", -5.965299606f, 1}, {"ri", -5.971325397f, 1},
    {"ight", -5.981342316f, 1}, {"\342\226\201'", -5.9921422f, 1}, {"\342\226\201m", -6.01609087f, 1},
    {"et", -6.035896778f, 1}, {"ne", -6.081800461f, 1}, {"\342\226\201all", -6.108777523f, 1},
    {"\342\226\201sh", -6.11382246f, 1}, {"ut", -6.135807991f, 1}, {"ter", -6.140050411f, 1},
    {"th", -6.160354137f, 1}, {"il", -6.172140121f, 1}, {"\342\226\201re", -6.176682472f, 1},
    {"am", -6.192007065f, 1}, {"ent", -6.211503029f, 1}, {"\342\226\201r", -6.229874611f, 1},
    {"\342\226\201you", -6.282215595f, 1}, {"ce", -6.292969704f, 1}, {"as", -6.293782234f, 1},
    {"\342\226\201them", -6.29392767f, 1}, {"\342\226\201out", -6.294906616f, 1}, {"id", -6.297027111f, 1},
    {"\342\226\201ha", -6.319906235f, 1}, {"ic", -6.320299149f, 1}, {"\342\226\201him", -6.344209671f, 1},
    {"im", -6.347088337f, 1}, {"is", -6.353394508f, 1}, {"\342\226\201ca", -6.365904808f, 1},
    {"\342\226\201c", -6.37025547f, 1}, {"\342\226\201no", -6.378453732f, 1}, {"\342\226\201de", -6.379491329f, 1},
    {"\342\226\201one", -6.381066322f, 1}, {"\342\226\201said", -6.388135433f, 1},
    {"\342\226\201from", -6.393570423f, 1}, {"\342\226\201S", -6.39615345f, 1}, {"ear", -6.397764683f, 1},
    {"\342\226\201little", -6.404606819f, 1}, {"ay", -6.406407833f, 1}, {"\342\226\201-", -6.410853863f, 1},
    {"\342\226\201A", -6.412158966f, 1}, {"and", -6.417441368f, 1}, {"\342\226\201up", -6.436545372f, 1},
    {"ll", -6.45787096f, 1}, {"ld", -6.462873459f, 1}, {"H", -6.509750843f, 1}, {"W", -6.558289051f, 1},
    {"z", -6.6603508f, 1}, {"I", -6.743827343f, 1}, {"P", -6.766175747f, 1}, {"T", -7.135708332f, 1},
    {"x", -7.299000263f, 1}, {"A", -7.441358566f, 1}, {"D", -7.546701431f, 1}, {"S", -8.06586647f, 1},
    {"M", -9.483805656f, 1}};
static const expected bytes_ids[] = {
{"Hello world", 8, {260, 389, 264, 387, 272, 293, 300, 388}},
{"the cat and  the dog ", 11, {262, 372, 268, 267, 260, 262, 260, 275, 272, 295, 260}},
{"  two  spaces  ", 14, {260, 260, 316, 331, 272, 260, 260, 261, 269, 278, 362, 261, 260, 260}},
{"\011A\011B\012", 5, {260, 384, 260, 70, 260}},
{"caf\303\251 cafe\314\201", 8, {372, 314, 199, 173, 372, 314, 199, 173}},
{"\342\221\240\342\221\241\342\221\242", 8, {260, 53, 230, 149, 165, 230, 149, 166}},
{"\357\274\241\357\274\242", 2, {271, 70}},
{"ABCABABB", 8, {271, 304, 298, 278, 304, 278, 304, 70}},
{"\357\267\272", 4, {260, 261, 271, 293}},
{"soft\302\255hy\302\255phen", 7, {325, 314, 355, 280, 269, 288, 309}},
{"\357\254\201nd\342\200\246", 6, {291, 292, 275, 265, 265, 265}},
    {"\346\227\245\346\234\254\350\252\236 x \346\227\245", 16, {260, 234, 155, 169, 234, 160, 176, 236, 174, 162,
    260, 395, 260, 234, 155, 169}},
{"\342\226\201mark\342\226\201", 5, {260, 348, 299, 297, 260}},
{"a", 1, {271}},
{"\303\251", 3, {260, 199, 173}},
{"\077\077\077\077", 5, {260, 67, 67, 67, 67}},
{"1 2 3", 6, {260, 53, 260, 54, 260, 55}},
{"", 0, {0}},
    {"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 41, {260, 395, 395, 395, 395, 395, 395, 395, 395, 395, 395, 395,
    395, 395, 395, 395, 395, 395, 395, 395, 395, 395, 395, 395, 395, 395, 395, 395, 395, 395, 395, 395, 395, 395,
    395, 395, 395, 395, 395, 395, 395}},
{"one\302\240two", 4, {376, 316, 331, 272}},
{"\302\255", 1, {260}},
{"the\360\237\230\200the", 7, {262, 244, 163, 156, 132, 355, 264}},
{"e\314\201\302\255\342\200\246", 6, {260, 199, 173, 265, 265, 265}},
};
/* clang-format on */

typedef struct model {
    const piece *pieces;
    size_t       n_pieces;
    const unit  *units;
    size_t       n_units, all_units;
    const char  *texts;
    size_t       n_texts;
    bool         extra_spaces; /* stay */
} model;

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static const model plain = {plain_pieces, COUNT(plain_pieces), plain_units,         COUNT(plain_units),
                            PLAIN_UNITS,  plain_texts,         sizeof(plain_texts), false};
static const model bytes = {bytes_pieces, COUNT(bytes_pieces), bytes_units,         COUNT(bytes_units),
                            BYTES_UNITS,  bytes_texts,         sizeof(bytes_texts), true};

enum { PIECES = 700, BLOB = 8192 };

static size_t make_blob(const model *m, uint8_t *blob) {
    const uint32_t trie = (uint32_t)m->all_units * 4;
    memset(blob, 0, BLOB);
    memcpy(blob, &trie, 4);
    for (size_t i = 0; i < m->n_units; i++) {
        memcpy(blob + 4 + 4 * (size_t)m->units[i].at, &m->units[i].value, 4);
    }
    memcpy(blob + 4 + trie, m->texts, m->n_texts);
    return 4 + trie + m->n_texts;
}

static size_t make_vocabulary(const model *m, gguf_str *texts, float *scores, int32_t *kinds) {
    static char names[256][8];
    size_t      n = 0;
    for (size_t i = 0; i < m->n_pieces; i++) {
        const piece *p = &m->pieces[i];
        for (int b = 0; b < (p->text ? 1 : 256); b++, n++) {
            snprintf(names[b], sizeof(names[b]), "<0x%02X>", b);
            const char *text = p->text ? p->text : names[b];
            texts[n] = (gguf_str){text, strlen(text)};
            scores[n] = p->score;
            kinds[n] = p->kind;
        }
    }
    return n;
}

/* A file of a model; `blob` may be wrong. */
static gguf *make_file(const model *m, const uint8_t *blob, size_t n_blob, str *file) {
    static gguf_str texts[PIECES];
    static float    scores[PIECES];
    static int32_t  kinds[PIECES];
    const size_t    n = make_vocabulary(m, texts, scores, kinds);
    err             e = {0};
    gguf_writer    *w = gguf_write_open_memory(file, &e);
    gguf_write_text(w, "tokenizer.ggml.model", "t5");
    gguf_write_strings(w, "tokenizer.ggml.tokens", texts, n);
    gguf_write_array(w, "tokenizer.ggml.scores", GGUF_F32, scores, n);
    gguf_write_array(w, "tokenizer.ggml.token_type", GGUF_I32, kinds, n);
    gguf_write_bool(w, "tokenizer.ggml.add_space_prefix", true);
    gguf_write_bool(w, "tokenizer.ggml.remove_extra_whitespaces", !m->extra_spaces);
    gguf_write_array(w, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, blob, n_blob);
    assert_ok(gguf_write_finish(w, &e), e);
    gguf *g = gguf_open_memory("unigram", file->data, file->len, &e);
    assert_ok(g, e);
    return g;
}

typedef struct opened {
    str        file;
    gguf      *g;
    tokenizer *t;
} opened;

static opened open_model(const model *m) {
    uint8_t blob[BLOB];
    opened  o = {0};
    err     e = {0};
    o.g = make_file(m, blob, make_blob(m, blob), &o.file);
    o.t = tokenizer_open(o.g, &e);
    assert_ok(o.t, e);
    return o;
}

static void close_model(opened *o) {
    tokenizer_close(o->t);
    gguf_close(o->g);
    str_free(&o->file);
}

static int compare(const tokenizer *t, const expected *want, size_t count) {
    int wrong = 0;
    for (size_t i = 0; i < count; i++) {
        token_ids ids = encode(t, want[i].text, strlen(want[i].text), (encode_options){0});
        bool      same = ids.count == want[i].count;
        for (size_t k = 0; same && k < ids.count; k++) {
            same = ids.ids[k] == want[i].ids[k];
        }
        if (!same) {
            printf("   \"%s\": %zu ids, SentencePiece has %zu:", want[i].text, ids.count, want[i].count);
            for (size_t k = 0; k < ids.count; k++) {
                printf(" %s", tokenizer_text(t, ids.ids[k]));
            }
            printf("\n");
            wrong++;
        }
        token_ids_free(&ids);
    }
    return wrong;
}

static void test_as_sentencepiece(void **state) {
    (void)state;
    opened o = open_model(&plain);
    int    wrong = compare(o.t, plain_ids, COUNT(plain_ids));
    close_model(&o);
    o = open_model(&bytes);
    wrong += compare(o.t, bytes_ids, COUNT(bytes_ids));
    close_model(&o);
    assert_int_equal(wrong, 0);
}

/* Of all ways to cut a text the best, found by trying them all. */
static double best_way(const tokenizer *t, const piece *pieces, size_t n_pieces, const char *text, size_t n) {
    double best = n == 0 ? 0 : -1e30;
    for (size_t i = 0; i < n_pieces; i++) {
        const size_t len = strlen(pieces[i].text);
        if (pieces[i].kind == TOKEN_NORMAL && len <= n && memcmp(text, pieces[i].text, len) == 0) {
            const double rest = best_way(t, pieces, n_pieces, text + len, n - len);
            best = rest + (double)pieces[i].score > best ? rest + (double)pieces[i].score : best;
        }
    }
    return best;
}

static void test_best_way(void **state) {
    (void)state;
    opened   o = open_model(&plain);
    uint64_t seed = 5;
    for (int k = 0; k < 300; k++) {
        char   text[16] = "\xE2\x96\x81";
        size_t n = 3;
        for (size_t want = 1 + test_random(&seed) % 9; want > 0; want--) {
            text[n++] = "etaonhisrd"[test_random(&seed) % 10];
        }
        token_ids ids = encode(o.t, text + 3, n - 3, (encode_options){0});
        double    got = 0;
        for (size_t i = 0; i < ids.count; i++) {
            got += (double)plain.pieces[ids.ids[i]].score;
        }
        assert_float_equal(got, best_way(o.t, plain.pieces, plain.n_pieces, text, n), 1e-4);
        token_ids_free(&ids);
    }
    close_model(&o);
}

/* Words met before are remembered in long texts: with and without memory the ids are the same. */
static void test_memory_of_words(void **state) {
    (void)state;
    opened    o = open_model(&plain);
    str       text = {0};
    token_ids parts = {0};
    uint64_t  seed = 9;
    while (text.len < 20000) {
        char   w[12];
        size_t n = 1 + test_random(&seed) % 6;
        for (size_t i = 0; i < n; i++) {
            w[i] = "etaZ\x7Fo"[test_random(&seed) % 6];
        }
        if (text.len > 0) {
            str_add(&text, " ", 1);
        }
        str_add(&text, w, n);
        token_ids one = encode(o.t, w, n, (encode_options){0});
        for (size_t i = 0; i < one.count; i++) {
            token_ids_add(&parts, one.ids[i]);
        }
        token_ids_free(&one);
    }
    token_ids all = encode(o.t, text.data, text.len, (encode_options){0});
    assert_int_equal(all.count, parts.count);
    assert_memory_equal(all.ids, parts.ids, all.count * sizeof(*all.ids));
    token_ids_free(&all);
    token_ids_free(&parts);
    str_free(&text);
    close_model(&o);
}

static void test_specials(void **state) {
    (void)state;
    opened    o = open_model(&bytes);
    token_ids ids = encode(o.t, "a", 1, (encode_options){true, false});
    assert_int_equal(ids.ids[ids.count - 1], 2); /* </s> is added, <s> is not */
    assert_int_not_equal(ids.ids[0], 1);
    token_ids_free(&ids);
    ids = encode(o.t, "a<x>b", 5, (encode_options){0});
    const int32_t user = tokenizer_find(o.t, "<x>", 3);
    bool          seen = false;
    for (size_t i = 0; i < ids.count; i++) {
        seen |= ids.ids[i] == user;
    }
    assert_true(seen);
    str back = decode(o.t, &ids, false);
    assert_string_equal(back.data, " a<x> b");
    assert_true(tokenizer_strips_first_space(o.t));
    assert_true(tokenizer_ends(o.t, 2));
    str_free(&back);
    token_ids_free(&ids);
    close_model(&o);
}

static void check_blob(const uint8_t *blob, size_t n, const char *says) {
    str        file = {0};
    err        e = {0};
    gguf      *g = make_file(&plain, blob, n, &file);
    tokenizer *t = tokenizer_open(g, &e);
    assert_null(t);
    assert_says(e, says);
    gguf_close(g);
    str_free(&file);
}

static void test_wrong_maps(void **state) {
    (void)state;
    uint8_t      blob[BLOB];
    const size_t n = make_blob(&plain, blob);
    check_blob(blob, 3, "3 bytes");
    check_blob(blob, n - 1, "end with a NUL");
    check_blob(blob, 4 + PLAIN_UNITS * 4, "end with a NUL");
    check_blob(blob, 4 + PLAIN_UNITS * 4 - 1, "its trie");
    memcpy(blob, (uint8_t[]){0, 0, 0, 0}, 4);
    check_blob(blob, n, "its trie");
    memcpy(blob, (uint8_t[]){0xFF, 0xFF, 0xFF, 0xFF}, 4);
    check_blob(blob, n, "its trie");
    make_blob(&plain, blob);
    memset(blob + n, 'x', BLOB - n);
    blob[BLOB - 1] = 0;
    check_blob(blob, BLOB, "a replacement of");
}

/* Any units and replacements: no read outside, and an end. */
static void test_mutated_maps(void **state) {
    (void)state;
    uint64_t seed = 77;
    uint8_t  blob[BLOB];
    for (int k = 0; k < 400; k++) {
        const size_t n = make_blob(&plain, blob);
        for (int flips = 1 + (int)(test_random(&seed) % 200); flips > 0; flips--) {
            blob[4 + test_random(&seed) % (n - 5)] = (uint8_t)(test_random(&seed) >> (flips & 7));
        }
        str        file = {0};
        err        e = {0};
        gguf      *g = make_file(&plain, blob, n, &file);
        tokenizer *t = tokenizer_open(g, &e);
        assert_ok(t, e);
        char text[400];
        for (size_t i = 0; i < sizeof(text); i++) {
            text[i] = (char)test_random(&seed);
        }
        token_ids ids = encode(t, text, sizeof(text), (encode_options){0});
        token_ids_free(&ids);
        ids = encode(t, plain_ids[4].text, strlen(plain_ids[4].text), (encode_options){0});
        token_ids_free(&ids);
        tokenizer_close(t);
        gguf_close(g);
        str_free(&file);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_sentencepiece), cmocka_unit_test(test_best_way),
        cmocka_unit_test(test_memory_of_words),  cmocka_unit_test(test_specials),
        cmocka_unit_test(test_wrong_maps),       cmocka_unit_test(test_mutated_maps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
